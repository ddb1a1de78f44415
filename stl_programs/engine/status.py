"""Where a run stands, as a record and as one live line."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """Where a run stands. Tokens, dollars, calls and states include those of tasks that are still running."""

    done: int
    total: int
    failed: int
    states: int
    calls: int
    tokens: int
    dollars: float
    """Of the calls whose price is known."""
    in_flight: int
    seconds: float
    seconds_left: float | None
    """At the pace so far; None before the first task is done."""

    @property
    def detail(self) -> str:
        """All but the tasks: `3 failed, 1.2k states, 340k tokens, $0.31, 32 in flight`."""
        parts = [f"{self.failed} failed"] if self.failed else []
        parts += [f"{_short(self.states)} states", f"{_short(self.tokens)} tokens"]
        parts += [f"${self.dollars:.2f}"] if self.dollars else []
        return ", ".join([*parts, f"{self.in_flight} in flight"])

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", {_clock(self.seconds_left)} left"
        return f"{self.done}/{self.total} tasks, {self.detail}{left}"


def show_progress(status: Status) -> None:
    """A live line on the terminal's error stream; elsewhere one line at the end. Pass it as `progress=`."""
    finished = status.done == status.total
    if sys.stderr.isatty():
        print(f"\r\x1b[K{status}", end="\n" if finished else "", file=sys.stderr, flush=True)
    elif finished:
        print(status, file=sys.stderr)


def _short(count: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count:g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
