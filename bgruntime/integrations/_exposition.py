"""The numbers as Prometheus reads them, without its client: text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bgruntime import RuntimeStats, __version__
from bgruntime.extend import Spread
from bgruntime.journal import JournalStats

from ._series import Families, Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labelled = list[tuple[str, str]]


def exposition(families: Families, stats: RuntimeStats, journal: JournalStats | None) -> Iterator[str]:
    """The page that a scrape reads, line by line."""
    return (f"{line}\n" for line in _lines(families.of(stats, journal)))


def _lines(families: Iterable[Family]) -> Iterator[str]:
    yield from _head("bgruntime_info", "gauge", "The version of bgruntime.")
    yield _sample("bgruntime_info", [("version", __version__)], 1)
    for family in families:
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        yield from _head(name, family.kind, family.about)
        for values, value in family.values.items():
            yield _sample(name, list(zip(family.labels, values, strict=True)), value)
        for values, spread in family.spreads.items():
            yield from _histogram(name, list(zip(family.labels, values, strict=True)), spread)


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _histogram(name: str, labels: Labelled, spread: Spread) -> Iterator[str]:
    for bound, count in spread.up_to.items():
        yield _sample(f"{name}_bucket", [*labels, ("le", str(bound))], count)
    yield _sample(f"{name}_bucket", [*labels, ("le", "+Inf")], spread.count)
    yield _sample(f"{name}_sum", labels, spread.total)
    yield _sample(f"{name}_count", labels, spread.count)


def _sample(name: str, labels: Labelled, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{inside}}} {value:.9g}" if inside else f"{name} {value:.9g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


__all__ = ["CONTENT_TYPE", "exposition"]
