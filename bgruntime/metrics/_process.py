"""What the system says of this process. Reading costs some tens of microseconds, so it is read when asked."""

from __future__ import annotations

import os
import threading

from bgruntime.extend import ProcessStats, ports


class Process:
    """The numbers of this process; asked twice, it knows what share of a core was used in between."""

    def __init__(self) -> None:
        self._cpu, self._at = _cpu_seconds(), ports.current().monotonic()

    def read(self) -> ProcessStats:
        """The numbers now."""
        cpu, now = _cpu_seconds(), ports.current().monotonic()
        share = max(0.0, cpu - self._cpu) / (now - self._at) if now > self._at else 0.0
        self._cpu, self._at = cpu, now
        return ProcessStats(cpu, share, _rss_bytes(), _open_files(), threading.active_count())


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _rss_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _open_files() -> int | None:
    for place in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(place)) - 1  # one of them is the listing's own
        except OSError:
            continue
    return None


__all__ = ["Process"]
