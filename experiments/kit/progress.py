"""Progress bars for long work: live on a terminal, one line per finished stage elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def quiet_console() -> Console:
    """A console that prints nothing, for workers whose progress the parent shows."""
    return Console(quiet=True)


class Bars:
    """A bar per stage; use as a context manager.

    Example:
        >>> with Bars() as bars:
        ...     bars.show("rollouts", 3, 100)
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console()
        self.live = self.console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[detail]}"), console=self.console, disable=not self.live)
        self._stages: dict[str, tuple[TaskID, float]] = {}
        self._said: set[str] = set()

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, stage: str, done: int, total: int, detail: str = "") -> None:
        if stage not in self._stages:
            self._stages[stage] = (self._progress.add_task(stage, total=total, detail=""), time.perf_counter())
        task, started = self._stages[stage]
        self._progress.update(task, completed=done, total=total, detail=detail if done < total else "")
        if done >= total and not self.live and stage not in self._said:
            self._said.add(stage)
            self.say(f"{stage}: {done} in {time.perf_counter() - started:.1f} s")

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, soft_wrap=True, markup=False)
