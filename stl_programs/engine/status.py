"""Where a run stands, as a record and as one live line."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from stl_programs.display import clean
from stl_programs.records import TaskResult, Usage
from stl_programs.secrets import masked

TICK = 0.5
"""Seconds between two reports of progress while no task ends."""
NOTEBOOK = "ipykernel.iostream"
"""Where the error stream of a notebook's kernel comes from; it keeps to a terminal's line codes."""
APART = 0.2
"""Seconds between two reports, at least."""


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


@dataclass(slots=True)
class Tally:
    """Running totals of a run: kept as things happen, so that a status never has to add anything up."""

    done: int = 0
    failed: int = 0
    states: int = 0
    calls: int = 0
    tokens: int = 0
    dollars: float = 0.0

    def bill(self, usage: Usage) -> None:
        """Count what calls cost, when it is known."""
        self.calls += usage.calls
        self.tokens += usage.prompt_tokens + usage.completion_tokens
        self.dollars += usage.dollars or 0.0

    def finished(self, result: TaskResult) -> None:
        """Count a task. Its states and calls were counted while it ran."""
        self.done += 1
        self.failed += result.error is not None

    def known(self, result: TaskResult) -> None:
        """Count a task of an earlier run with all that it cost."""
        self.finished(result)
        self.states += result.states_expanded
        for usage in result.usage.values():
            self.bill(Usage(**usage))


class Reports:
    """Tells `progress` where a run stands: as tasks end, at most every `APART` seconds, and once at the end.

    One that fails is warned of, and not called again: it spoils no run. Ctrl-C passes through.
    """

    def __init__(self, progress: Callable[[Status], None] | None, status: Callable[[], Status],
                 clock: Callable[[], float] = time.perf_counter):
        self.progress, self.status, self.clock = progress, status, clock
        self._last = float("-inf")

    def due(self) -> None:
        """Report, unless that was done a moment ago."""
        if self.progress is not None and (now := self.clock()) - self._last >= APART:
            self._last = now
            self._tell(self.progress)

    def _tell(self, progress: Callable[[Status], None]) -> None:
        try:
            progress(self.status())
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as error:
            self.progress = None
            warnings.warn(f"progress failed, and is not called again: {type(error).__name__}: "
                          f"{clean(masked(str(error)))}", RuntimeWarning, stacklevel=2)

    @contextlib.asynccontextmanager
    async def ticking(self) -> AsyncIterator[None]:
        """Report while the block runs also where no task ends, and once more when it is left without an error."""
        if self.progress is None:
            yield
            return
        ticker = asyncio.ensure_future(self._tick())
        try:
            yield
        finally:
            ticker.cancel()
        if self.progress is not None:
            self._tell(self.progress)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.due()


def show_progress(status: Status) -> None:
    """A live line on a terminal or under a notebook's cell; elsewhere one line at the end. Pass it as `progress=`."""
    finished = status.done == status.total
    if sys.stderr.isatty() or type(sys.stderr).__module__ == NOTEBOOK:
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
