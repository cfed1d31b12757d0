"""Pictures that can be read without the text: the bars, what a job costs, waiting, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import BARS
from benchmarks.harness import Figure, Report
from benchmarks.telling import cell_name, columns_of, judged, number

OURS, PEER, MISSED, MET = "#00639a", "#b8bfc6", "#b3261e", "#2e7d32"
CELL_COLOURS = ("#00639a", "#6aaed6", "#b35900", "#f2a65a")
MARKERS = ("o", "s", "D", "^")
KINDS = ("no-op", "suspends once")


def draw(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Draw what the reports have figures for; returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pictures: dict[str, Callable[[Sequence[Report]], Any]] = {
        "bars": bars,
        "cost": cost,
        "waiting": waiting,
        "memory": memory,
    }
    files: list[Path] = []
    for name, picture in pictures.items():
        figure = picture(reports)
        if figure is not None:
            files.append(folder / f"{name}.png")
            figure.savefig(files[-1], dpi=120)
            pyplot.close(figure)
    return files


def bars(reports: Sequence[Report]) -> Any:
    """Every bar as one row: how many times better than it each cell is; left of 1 it is missed."""
    rows = list(judged(reports))
    if not rows:
        return None
    names = [name for name in BARS if any(bar.figure == name for bar, _, _ in rows)]
    figure, axes = subplots(1, 1, (12, 0.36 * len(names) + 1.8))
    axes.axvspan(0.01, 1, color=MISSED, alpha=0.07)
    axes.axvspan(1, 100, color=MET, alpha=0.07)
    axes.axvline(1, color="#333333", linewidth=1)
    cells = columns_of(reports)
    for index, cell in enumerate(cells):
        mine = [(bar, one, report) for bar, one, report in rows if cell_name(report) == cell]
        heights = [names.index(bar.figure) + 0.16 * (index - (len(cells) - 1) / 2) for bar, _, _ in mine]
        margins = [bar.margin(one, report) for bar, one, report in mine]
        axes.scatter(
            margins,
            heights,
            color=CELL_COLOURS[index % 4],
            marker=MARKERS[index % 4],
            s=34,
            label=cell,
            zorder=3,
        )
    axes.set(xscale="log", xlim=(0.3, 12), ylim=(len(names) - 0.4, -0.6))
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(
        [0.33, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10], ["⅓", "½", "¾", "the bar", "1½×", "2×", "3×", "5×", "≥ 10×"]
    )
    axes.minorticks_off()
    axes.grid(axis="x", alpha=0.25)
    axes.set_title("bgruntime with everything on, against its bars: right of the line is better", loc="left")
    axes.legend(loc="lower right", fontsize=9)
    return signed(figure, reports)


def cost(reports: Sequence[Report]) -> Any:
    """CPU time per job, everybody, one column for each cell."""
    measured = [report for report in reports if report.claim == "throughput"]
    if not measured:
        return None
    measured.sort(key=lambda report: columns_of(reports).index(cell_name(report)))
    figure, grid = subplots(len(KINDS), len(measured), (4.2 * len(measured) + 3.2, 10.5), sharey="row")
    for row, kind in zip(grid_of(grid), KINDS, strict=True):
        for axes, report in zip(row, measured, strict=True):
            levels(axes, [one for one in report.figures if is_cost(one, kind)], f"{kind}: ")
            axes.set_title(f"job: {kind} · {cell_name(report)}", fontsize=11)
            axes.set(xscale="log", xlabel="µs of CPU per job (log scale, shorter is better)")
            axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
            axes.minorticks_off()
            axes.set_xlim(0.5, 110)
    figure.suptitle(
        "50,000 jobs, at most 100 at once: from submit to the awaited result", fontsize=14, fontweight="bold"
    )
    return signed(figure, reports)


def is_cost(figure: Figure, kind: str) -> bool:
    return figure.unit == "ns/job" and figure.name.startswith(f"{kind}: ")


def waiting(reports: Sequence[Report]) -> Any:
    """How near jobs that wait 10 ms come to the ideal."""
    measured = [report for report in reports if report.claim == "sleeping"]
    if not measured:
        return None
    measured.sort(key=lambda report: columns_of(reports).index(cell_name(report)))
    limits = ("limit 100", "limit 1,000")
    figure, grid = subplots(len(limits), len(measured), (4.2 * len(measured) + 3.2, 6.8), sharey="row")
    for row, limit in zip(grid_of(grid), limits, strict=True):
        for axes, report in zip(row, measured, strict=True):
            prefix = f"10 ms jobs, {limit}: ideal ÷ wall, "
            levels(axes, [one for one in report.figures if one.name.startswith(prefix)], prefix, most=True)
            axes.axvline(1, color="#333333", linestyle=":")
            axes.set_title(f"{limit} · {cell_name(report)}", fontsize=11)
            axes.set(xlim=(0, 1.18), xlabel="ideal ÷ wall time (1 is the most there can be)")
    figure.suptitle("10,000 jobs that wait 10 ms each", fontsize=14, fontweight="bold")
    return signed(figure, reports)


def memory(reports: Sequence[Report]) -> Any:
    """Bytes per waiting job."""
    prefix = "1,000,000 pending: "
    for report in reports:
        found = [one for one in report.figures if one.name.startswith(prefix)]
        if len(found) > 1:
            figure, axes = subplots(1, 1, (10, 3.6))
            levels(axes, found, prefix)
            axes.set(xlabel="bytes per waiting job (shorter is better)")
            axes.set_title(f"A million jobs waiting, without arguments · {cell_name(report)}", loc="left")
            axes.set_xlim(0, max(one.high for one in found) * 1.15)
            return signed(figure, reports)
    return None


# -- drawing ------------------------------------------------------------------------------------------


def levels(axes: Any, figures: Sequence[Figure], prefix: str, *, most: bool = False) -> None:
    """One horizontal bar for each figure, the best on top, ours in colour, with its range."""
    order = sorted(figures, key=lambda one: one.middle, reverse=most)
    scale = 1e-3 if order and order[0].unit == "ns/job" else 1.0
    names = [one.name.removeprefix(prefix) for one in order]
    middles = [one.middle * scale for one in order]
    ranges = [
        [middle - one.low * scale for one, middle in zip(order, middles, strict=True)],
        [one.high * scale - middle for one, middle in zip(order, middles, strict=True)],
    ]
    colours = [OURS if name.startswith("bgruntime") else PEER for name in names]
    axes.barh(names, middles, xerr=ranges, color=colours, error_kw={"ecolor": "#333333", "capsize": 2})
    for name, one, middle in zip(names, order, middles, strict=True):
        text = f"{middle:.2f}" if scale != 1.0 or most else number(middle, one.unit)
        axes.annotate(
            text, (one.high * scale, name), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_ylim(len(names) - 0.4, -0.6)  # the best on top, also where axes are shared
    axes.grid(axis="x", alpha=0.25)


def subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, layout="constrained", **options)


def grid_of(axes: Any) -> list[list[Any]]:
    """The axes as rows of columns, also where there is one column only."""
    return [list(row) if hasattr(row, "__len__") else [row] for row in axes]


def signed(figure: Any, reports: Sequence[Report]) -> Any:
    """Say below what it was measured on."""
    machine = reports[0].machine
    pythons = ", ".join(dict.fromkeys(report.python for report in reports))
    figure.supxlabel(
        f"Python {pythons} · {machine['cpus']} × {machine['cpu']} · medians, lines from lowest to highest",
        fontsize=9,
        color="#555555",
    )
    return figure
