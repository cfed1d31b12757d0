from __future__ import annotations
from benchmarks.harness import Report
def print_figures(report: Report) -> None:
    print(report.claim, report.python, report.loop, report.machine)
    for f in report.figures:
        s = 2 if f.unit in ("×",) else 0
        print(f"{f.name:<70}{f.middle:>12,.{s}f} {f.unit:<8}[{f.low:,.{s}f} – {f.high:,.{s}f}]")
