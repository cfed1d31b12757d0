"""docs/performance.md: what was measured, written between two marks; the prose around them stays.

    python -m benchmarks.page                  write the page anew from what is kept
    python -m benchmarks.page --take           before that take what `python -m benchmarks --full` has left
    python -m benchmarks.page --take FOLDER    the same, from another folder

What is taken is kept as one small file for each cell, a version of Python and an event loop, in
benchmarks/results: median, lowest and highest of each figure. A benchmark that was not measured again keeps
what it had. The pictures are drawn beside them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bars import BARS, CELLS
from benchmarks.harness import Figure, Report, note, read_all
from benchmarks.pictures import draw
from benchmarks.telling import cell_name, columns_of, judged, number, spread

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
COUNTS = ROOT / "benchmarks" / "instructions.json"
BEGIN, END = "<!-- measured: begin; python -m benchmarks.page writes this -->", "<!-- measured: end -->"

TITLES = {
    "throughput": "From submit to the awaited result: 50,000 jobs, at most 100 at once",
    "round_trip": "One job at a time",
    "timeouts": "A timeout that does not fire",
    "sleeping": "10,000 jobs that wait 10 ms",
    "sequential_vs_batched": "One after another, or in bounded batches",
    "loop_hold": "How long the loop is held",
    "memory": "Memory",
    "threads": "A plain function in a thread",
    "web": "FastAPI: requests that start a job",
    "journal": "Durable jobs in SQLite",
}
PICTURES = {
    "bars": "every bar, and how far each cell is from it",
    "cost": "CPU time per job, beside every peer",
    "waiting": "jobs that wait: share of the ideal",
    "memory": "bytes per waiting job",
}


@dataclass
class Cell:
    """What is kept of one version of Python and one loop."""

    python: str
    loop: str
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return f"cell.{short(self.python)}.{self.loop}.json"

    def take(self, report: Report) -> None:
        """Put *report* in the place of what there was of its benchmark."""
        self.python = report.python
        figures = {one.name: summary(one) for one in report.figures}
        self.claims[report.claim] = {
            "machine": {**report.machine, "system": system(report.machine)},
            "figures": figures,
        }

    def reports(self) -> Iterator[Report]:
        """What was taken, with the lowest, the median and the highest for values."""
        for claim, kept in self.claims.items():
            figures = [Figure(name, one["unit"], values_of(one)) for name, one in kept["figures"].items()]
            yield Report(claim, self.python, self.loop, kept["machine"], figures)

    def rounds(self, claim: str) -> int:
        """The most rounds that a figure of *claim* has."""
        found: list[int] = [one["rounds"] for one in self.claims[claim]["figures"].values()]
        return max(found)


def summary(figure: Figure) -> dict[str, Any]:
    """Median, lowest and highest, to five digits."""
    told = {name: float(f"{value:.5g}") for name, value in (
        ("median", median(figure.values)), ("low", figure.low), ("high", figure.high),
    )}  # fmt: skip
    return {"unit": figure.unit, **told, "rounds": len(figure.values)}


def values_of(kept: dict[str, Any]) -> list[float]:
    """Values of which the median, the lowest and the highest are those that were kept."""
    return [kept["median"]] if kept["rounds"] == 1 else [kept["low"], kept["median"], kept["high"]]


def short(python: str) -> str:
    return ".".join(python.split(".")[:2])


# -- what is kept -------------------------------------------------------------------------------------


def cells_in(results: Path) -> list[Cell]:
    """What was taken before, in the order of the columns."""
    found = [Cell(**json.loads(file.read_text())) for file in sorted(results.glob("cell.*.json"))]
    order = {cell: place for place, cell in enumerate(CELLS)}
    return sorted(found, key=lambda cell: order.get((short(cell.python), cell.loop), len(order)))


def take(reports: Iterable[Report], results: Path, *, quick: bool) -> None:
    """Keep *reports*; of the short form only where it was asked for."""
    cells = {(short(cell.python), cell.loop): cell for cell in cells_in(results)}
    for report in reports:
        if not report.figures:
            continue
        if report.quick and not quick:
            note(f"left out, the short form: {report.claim}, {cell_name(report)}")
            continue
        key = short(report.python), report.loop
        cells.setdefault(key, Cell(*key)).take(report)
    for cell in cells.values():
        cell.claims = {claim: cell.claims[claim] for claim in TITLES if claim in cell.claims}
        document = {"python": cell.python, "loop": cell.loop, "claims": cell.claims}
        (results / cell.file).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


# -- the page -----------------------------------------------------------------------------------------


def measured(results: Path, counts: Path, page: Path) -> str:
    """The part between the marks."""
    cells = cells_in(results)
    reports = [report for cell in cells for report in cell.reports()]
    lines = [*verdicts(cells, reports), *missed(reports), *pictures(results, page)]
    for claim in TITLES:
        if mine := [report for report in reports if report.claim == claim]:
            lines += section(claim, mine, [cell for cell in cells if claim in cell.claims])
    return "\n".join([*lines, *instructions(counts)]).strip() + "\n"


def verdicts(cells: Sequence[Cell], reports: Sequence[Report]) -> Iterator[str]:
    if not cells:
        return
    yield from ("### At a glance", "", "| cell | bars met | measured on |", "|---|---:|---|")
    for cell in cells:
        name = cell_name(Report("", cell.python, cell.loop, {}))
        mine = [(bar, one, report) for bar, one, report in judged(reports) if cell_name(report) == name]
        met = sum(bar.is_met(one, report) for bar, one, report in mine)
        yield f"| {name} | {met} of {len(mine)} | {machines(cell)} |"
    yield ""
    yield f"Versions: {versions(reports)}."
    yield ""


def machines(cell: Cell) -> str:
    """The build of Python, and what it ran on; more than one where the benchmarks were not run together."""
    facts = [kept["machine"] for kept in cell.claims.values()]
    python = max((one["python"] for one in facts), key=len)
    places = {f"{one['cpus']} × {one['cpu']}, {system(one)}": None for one in facts}
    return f"Python {python}, {'; '.join(places)}"


def system(facts: dict[str, Any]) -> str:
    """Its name and architecture, without the release."""
    first, *_, last = facts["system"].split()
    return f"{first} {last}"


def versions(reports: Sequence[Report]) -> str:
    """Of everything that was measured beside us."""
    found: dict[str, dict[str, None]] = {}
    for report in reports:
        for name, version in report.machine.get("versions", {}).items():
            found.setdefault(name, {})[version] = None
        if "sqlite" in report.machine:
            found.setdefault("SQLite", {})[report.machine["sqlite"]] = None
    return ", ".join(f"{name} {' and '.join(found[name])}" for name in found)


def missed(reports: Sequence[Report]) -> Iterator[str]:
    """What is not as good as it was to be, before everything that is."""
    rows = [(bar, one, report) for bar, one, report in judged(reports) if not bar.is_met(one, report)]
    if not rows:
        return
    yield from (
        "### Bars that are missed",
        "",
        "| | cell | median [lowest–highest] | bar |",
        "|---|---|---:|---:|",
    )
    for bar, one, report in rows:
        limit = f"{bar.sign()} {number(bar.limit(report), one.unit)}"
        yield f"| {bar.figure}, {one.unit} | {cell_name(report)} | {spread(one)} | {limit} |"
    yield ""


def pictures(results: Path, page: Path) -> Iterator[str]:
    for name, text in PICTURES.items():
        file = results / f"{name}.png"
        if file.exists():
            yield from (f"![{text}]({os.path.relpath(file, page.parent)})", "")


def section(claim: str, reports: Sequence[Report], cells: Sequence[Cell]) -> Iterator[str]:
    """One benchmark: its command, what has a bar, then the rest."""
    yield from (f"### {TITLES[claim]}", "", "```console", command(claim), "```", "")
    yield f"{'; '.join(circumstances(cell, claim) for cell in cells)}."
    yield ""
    columns = columns_of(reports)
    yield f"| | unit | {' | '.join(columns)} |"
    yield f"|---|---|{'---:|' * len(columns)}"
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for with_bar in (True, False):
        for report in reports:
            for one in report.figures:
                if (one.name in BARS) is with_bar:
                    rows.setdefault((one.name, one.unit), {})[cell_name(report)] = told(one, report)
    for (name, unit), texts in rows.items():
        yield f"| {name} | {unit} | {' | '.join(texts.get(column, '') for column in columns)} |"
    yield ""


def circumstances(cell: Cell, claim: str) -> str:
    """How often it was measured, and how busy the machine was before."""
    name = cell_name(Report("", cell.python, cell.loop, {}))
    rounds, load = cell.rounds(claim), cell.claims[claim]["machine"]["load"]
    return f"{name}: {rounds} round{'s' * (rounds > 1)}, load {load:g} at the start"


def command(claim: str) -> str:
    """What measures it again, in both cells of a Python."""
    return f'$ make bench-full ARGS="--only {claim}"'


def told(figure: Figure, report: Report) -> str:
    """The figure, and with a bar its verdict."""
    bar = BARS.get(figure.name)
    if bar is None:
        return spread(figure)
    against = f"{bar.sign()} {number(bar.limit(report), figure.unit)}"
    return f"{spread(figure)} " + (
        f"met {against}" if bar.is_met(figure, report) else f"**missed {against}**"
    )


def instructions(counts: Path) -> Iterator[str]:
    """Instructions per job, one column for each build of Python."""
    if not counts.exists():
        return
    known: dict[str, dict[str, dict[str, float]]] = json.loads(counts.read_text())
    yield from (
        "### Instructions per job",
        "",
        "```console",
        "$ python -m benchmarks.instructions --peers --parts",
        "```",
    )
    builds = sorted(known, reverse=True)
    yield from ("", f"| job | way | {' | '.join(builds)} |", f"|---|---|{'---:|' * len(builds)}")
    for kind in known[builds[0]]:
        ways = sorted(known[builds[0]][kind], key=lambda way: known[builds[0]][kind][way])
        for way in ways:
            numbers = [known[build].get(kind, {}).get(way) for build in builds]
            texts = ["" if one is None else f"{one:,.0f}" for one in numbers]
            yield f"| {kind} | {way} | {' | '.join(texts)} |"
    yield ""


def written(page: str, part: str) -> str:
    """*page* with *part* between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page has no {BEGIN} … {END}")
    return f"{before}{begin}\n\n{part}\n{end}{after}"


def main() -> None:
    """Take, write, draw."""
    options = arguments()
    options.results.mkdir(parents=True, exist_ok=True)
    if options.take is not None:
        take(read_all(options.take), options.results, quick=options.quick)
    draw([report for cell in cells_in(options.results) for report in cell.reports()], options.results)
    part = measured(options.results, COUNTS, options.page)
    options.page.write_text(written(options.page.read_text(), part))
    print(f"written: {options.page}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What was measured, into docs/performance.md.")
    take = parser.add_argument(
        "--take", nargs="?", type=Path, metavar="FOLDER", help="first take its reports"
    )
    take.const = RESULTS / "local"
    parser.add_argument("--quick", action="store_true", help="take the short form too")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where what was taken is kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
