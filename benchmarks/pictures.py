"""Pictures that can be read without the text: the bars, what a job costs, waiting, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import BARS
from benchmarks.harness import Figure, Report
from benchmarks.telling import cell_name, columns_of, judged, number

# Told apart by eyes that see no red or no green; shape and words say the same once more.
OURS, PEER, MISSED, MET = "#00639a", "#b8bfc6", "#d55e00", "#0072b2"
CELL_COLOURS = ("#00639a", "#56b4e9", "#a64d00", "#f2a65a")
WORST, BEST = 0.2, 10.0  # times the bar; what is beyond is drawn at the edge
MARKERS = ("o", "s", "D", "^")
KINDS = ("no-op", "suspends once")
RAW = "create_task, batches of the limit"


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
    figure, [[axes]] = subplots(1, 1, (12, 0.34 * len(names) + 2.2))
    axes.set(xscale="log", xlim=(WORST * 0.85, BEST * 1.18), ylim=(len(names) - 0.4, -1.5))
    axes.axvspan(WORST / 2, 1, color=MISSED, alpha=0.09)
    axes.axvline(1, color="#333333", linewidth=1.5)
    for text, place, side in (("missed ◀ ", 1, "right"), (" ▶ met", 1, "left")):
        axes.text(place, -1.0, text, ha=side, va="center", fontsize=11, fontweight="bold")
    for index, cell in enumerate(cells := columns_of(reports)):
        mine = [(bar, one, report) for bar, one, report in rows if cell_name(report) == cell]
        axes.scatter(
            [min(max(bar.margin(one, report), WORST), BEST) for bar, one, report in mine],
            [names.index(bar.figure) + 0.18 * (index - (len(cells) - 1) / 2) for bar, _, _ in mine],
            color=CELL_COLOURS[index % 4],
            marker=MARKERS[index % 4],
            s=36,
            label=cell,
            zorder=3,
        )
    axes.set_yticks(range(len(names)), names)
    ticks = {0.2: "≤ ⅕", 1 / 3: "⅓", 0.5: "½", 0.7: "0.7", 1: "the bar", 1.4: "1.4×", 2: "2×", 3: "3×"}
    ticks |= {5: "5×", 10: "≥ 10×"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    figure.suptitle("bgruntime with everything on, against its bars", fontsize=14, fontweight="bold")
    axes.set_xlabel("how many times better than the bar asks (log scale)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=10, frameon=False)
    return signed(figure, reports, "medians")


def cost(reports: Sequence[Report]) -> Any:
    """CPU time per job, everybody: one row for each cell, one column for each kind of job."""
    measured = of_claim(reports, "throughput")
    if not measured:
        return None
    most = max(len([one for one in report.figures if is_cost(one, KINDS[0])]) for report in measured)
    height = (0.27 * most + 1.3) * len(measured) + 1
    figure, grid = subplots(len(measured), len(KINDS), (12.5, height), sharey="row")
    for row, report in zip(grid, measured, strict=True):
        for axes, kind in zip(row, KINDS, strict=True):
            levels(axes, [one for one in report.figures if is_cost(one, kind)], f"{kind}: ")
            axes.set_title(f"{cell_name(report)} · job: {kind}", fontsize=12)
            axes.set(xscale="log", xlim=(0.5, 130))
            axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
            axes.minorticks_off()
            draw_cost_bar(axes, report, kind)
    for axes in grid[-1]:
        axes.set_xlabel(
            "µs of CPU per job (log scale, shorter is better)\n"
            "dashed: the bar for bgruntime, against create_task in batches"
        )
    figure.suptitle(
        "50,000 jobs, at most 100 at once: from submit to the awaited result", fontsize=14, fontweight="bold"
    )
    return signed(figure, reports)


def draw_cost_bar(axes: Any, report: Report, kind: str) -> None:
    """Where the bar against bare tasks lies."""
    bar = BARS[f"{kind}: cost ÷ create_task in batches"]
    raw = next((one for one in report.figures if one.name == f"{kind}: {RAW}"), None)
    if raw is not None:
        limit = bar.limit(report)
        mark(axes, raw.middle * 1e-3 * limit, f"bar: {limit:g} × create_task")


def is_cost(figure: Figure, kind: str) -> bool:
    return figure.unit == "ns/job" and figure.name.startswith(f"{kind}: ")


def waiting(reports: Sequence[Report]) -> Any:
    """How near jobs that wait 10 ms come to the ideal."""
    measured = of_claim(reports, "sleeping")
    if not measured:
        return None
    limits = ("limit 100", "limit 1,000")
    prefixes = [f"10 ms jobs, {limit}: ideal ÷ wall, " for limit in limits]
    most = max(sum(one.name.startswith(prefixes[0]) for one in report.figures) for report in measured)
    height = (0.3 * most + 1.4) * len(measured) + 1
    figure, grid = subplots(len(measured), len(limits), (12.5, height), sharey="row")
    for row, report in zip(grid, measured, strict=True):
        for axes, limit, prefix in zip(row, limits, prefixes, strict=True):
            levels(axes, [one for one in report.figures if one.name.startswith(prefix)], prefix, most=True)
            axes.axvline(1, color="#333333", linestyle=":")
            axes.set_title(f"{cell_name(report)} · {limit}", fontsize=12)
            axes.set_xlim(0, 1.18)
            bar = BARS[f"{prefix}bgruntime, submit_nowait"].limit(report)
            mark(axes, bar, f"bar: {bar:g}", left=True)
    for axes in grid[-1]:
        axes.set_xlabel("ideal ÷ wall time (1 is the most there can be, longer is better)")
    figure.suptitle("10,000 jobs that wait 10 ms each", fontsize=14, fontweight="bold")
    return signed(figure, reports)


def of_claim(reports: Sequence[Report], claim: str) -> list[Report]:
    """The reports of one benchmark, in the order of the cells."""
    cells = columns_of(reports)
    found = [report for report in reports if report.claim == claim]
    return sorted(found, key=lambda report: cells.index(cell_name(report)))


def mark(axes: Any, place: float, text: str, *, left: bool = False) -> None:
    """A bar that is to be met, as a line with its name on top."""
    foot, _ = axes.get_ylim()
    axes.set_ylim(foot, -1.5)
    axes.axvline(place, color=MISSED, linestyle="--", linewidth=1.5)
    axes.annotate(
        text,
        (place, -1.0),
        xytext=(-4 if left else 4, 0),
        textcoords="offset points",
        color=MISSED,
        ha="right" if left else "left",
        va="center",
        fontsize=10,
    )


def memory(reports: Sequence[Report]) -> Any:
    """Bytes per waiting job."""
    prefix = "1,000,000 pending: "
    for report in reports:
        found = [one for one in report.figures if one.name.startswith(prefix)]
        if len(found) > 1:
            figure, [[axes]] = subplots(1, 1, (10, 3.8))
            levels(axes, found, prefix)
            axes.set(xlabel="bytes per waiting job (shorter is better)")
            figure.suptitle(
                f"A million jobs waiting, without arguments · {cell_name(report)}",
                fontsize=14,
                fontweight="bold",
            )
            axes.set_xlim(0, max(one.high for one in found) * 1.15)
            limit = BARS[f"{prefix}bgruntime"].limit(report)
            mark(axes, limit, f"bar: {limit:g}")
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
            text,
            (one.high * scale, name),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )
    axes.set_ylim(len(names) - 0.4, -0.6)  # the best on top, also where axes are shared
    axes.grid(axis="x", alpha=0.25)


def subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def signed(
    figure: Any, reports: Sequence[Report], what: str = "medians, lines from lowest to highest round"
) -> Any:
    """Say below what it was measured on."""
    machine = reports[0].machine
    pythons = ", ".join(dict.fromkeys(report.python for report in reports))
    text = f"Python {pythons} · {machine['cpus']} × {machine['cpu']} · {what}"
    figure.supxlabel(text, fontsize=9, color="#555555")
    return figure
