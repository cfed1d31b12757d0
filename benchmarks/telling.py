"""What was measured, told: a table with the bars, a Markdown page, and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.bars import BARS, CELLS, Bar
from benchmarks.harness import Figure, Report

DIGITS = {"ns/job": 0, "ns": 0, "B/job": 0, "req/s": 0, "share": 3}
MET, MISSED = "met", "MISSED"
LOOPS = {"asyncio": "stock loop", "uvloop": "uvloop"}


def number(value: float, unit: str) -> str:
    return f"{value:,.{DIGITS.get(unit, 2)}f}"


def spread(figure: Figure) -> str:
    """The median, and the lowest and highest where there was more than one round."""
    middle, low, high = (number(value, figure.unit) for value in (figure.middle, figure.low, figure.high))
    return middle if len(figure.values) == 1 else f"{middle} [{low}–{high}]"


def cell_name(report: Report) -> str:
    version = ".".join(report.python.split(".")[:2])
    return f"{version}, {LOOPS[report.loop]}"


def judged(reports: Iterable[Report]) -> Iterator[tuple[Bar, Figure, Report]]:
    """Every figure that has a bar, in the order of the bars."""
    found = {
        (figure.name, cell_name(report)): (figure, report)
        for report in reports
        for figure in report.figures
        if figure.name in BARS
    }
    for name, bar in BARS.items():
        for (figure_name, _), (figure, report) in found.items():
            if figure_name == name:
                yield bar, figure, report


# -- on the terminal ----------------------------------------------------------------------------------


def print_figures(report: Report) -> None:
    """Every figure of one benchmark, with its bar."""
    print(f"{report.claim}, Python {report.python}, {LOOPS[report.loop]}; {facts(report)}")
    width = max(len(figure.name) for figure in report.figures)
    for figure in report.figures:
        print(f"{figure.name:<{width}}  {spread(figure):>28} {figure.unit:<7}{verdict(figure, report)}")


def verdict(figure: Figure, report: Report) -> str:
    bar = BARS.get(figure.name)
    if bar is None:
        return ""
    word = MET if bar.is_met(figure, report) else MISSED
    return f"{word}, {bar.sign()} {number(bar.limit(report), figure.unit)}"


def print_verdicts(reports: Sequence[Report]) -> int:
    """One table of all bars, cell by cell; how many were missed."""
    rows = [
        (bar.figure, cell_name(report), spread(figure), figure.unit, verdict(figure, report))
        for bar, figure, report in judged(reports)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    last = ""
    for name, *rest in rows:
        shown = name if name != last else ""
        last = name
        cells = [
            f"{shown:<{widths[0]}}",
            *(f"{one:<{width}}" for one, width in zip(rest, widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())
    missed = sum(MISSED in row[-1] for row in rows)
    print(f"\n{len(rows) - missed} of {len(rows)} bars met")
    return missed


def facts(report: Report) -> str:
    machine = report.machine
    return f"{machine['cpus']} × {machine['cpu']}, {machine['python']}, load {machine['load']}"


# -- as Markdown --------------------------------------------------------------------------------------


def markdown(reports: Sequence[Report]) -> Iterator[str]:
    """A page: the bars in one table, then every figure."""
    columns = columns_of(reports)
    yield "## The bars"
    yield ""
    yield "Median [lowest–highest] over the rounds, and the bar. **Bold: missed.**"
    yield ""
    yield f"| | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    rows: dict[str, dict[str, str]] = {}
    for bar, figure, report in judged(reports):
        text = f"{spread(figure)} ({bar.sign()} {number(bar.limit(report), figure.unit)})"
        told = text if bar.is_met(figure, report) else f"**{text}**"
        rows.setdefault(f"{bar.figure}, {figure.unit}", {})[cell_name(report)] = told
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells.get(column, '') for column in columns)} |"
    for claim in dict.fromkeys(report.claim for report in reports):
        yield from every_figure(claim, [report for report in reports if report.claim == claim], columns)


def every_figure(claim: str, reports: Sequence[Report], columns: Sequence[str]) -> Iterator[str]:
    yield ""
    yield f"## {claim.replace('_', ' ')}"
    yield ""
    yield f"| | unit | {' | '.join(columns)} |"
    yield f"|---|---|{'---:|' * len(columns)}"
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for report in reports:
        for figure in report.figures:
            rows.setdefault((figure.name, figure.unit), {})[cell_name(report)] = spread(figure)
    for (name, unit), cells in rows.items():
        yield f"| {name} | {unit} | {' | '.join(cells.get(column, '') for column in columns)} |"


def columns_of(reports: Sequence[Report]) -> list[str]:
    """The cells there are, the newest Python first."""
    order = {cell_name(Report("", f"{version}.0", loop, {})): None for version, loop in CELLS}
    present = {cell_name(report): None for report in reports}
    return [name for name in order if name in present] + [name for name in present if name not in order]


def write_page(reports: Sequence[Report], file: Path) -> None:
    machine = dict.fromkeys(facts(report).rpartition(", load")[0] for report in reports)
    head = ["# Measured", "", *(f"- {line}" for line in machine), ""]
    file.write_text("\n".join([*head, *markdown(reports)]) + "\n")
