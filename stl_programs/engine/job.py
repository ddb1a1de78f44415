"""The trials of one run: which are left, what came of the others, and who is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from stl_programs.engine.aside import Aside
from stl_programs.engine.context import Run
from stl_programs.engine.journal import Journal, Unwritable
from stl_programs.engine.protocols import Search
from stl_programs.engine.status import Reports, Status
from stl_programs.records import Task, TaskResult


class Trial(NamedTuple):
    """A task to be searched with one seed. Requests of trials of lower `order` go first."""

    order: int
    seed: int
    task: Task


class Job:
    """What an executor is given: the program, the trials that are left, and what they share.

    `run` holds the bounds, budgets and journal; `aside` does what would hold up the event loop. `share_judgements`: one
    memory of judgements for all trials of a seed; `keep_trees`: results hold their tree; `commit`: chosen actions that
    cannot be undone are taken; `concurrency`: trials open at once.
    """

    def __init__(self, program: Search, trials: Sequence[tuple[int, Task]], run: Run, *, concurrency: int,
                 share_judgements: bool = False, keep_trees: bool = False, commit: bool = False,
                 progress: Callable[[Status], None] | None = None):
        self.program, self.trials, self.run, self.concurrency = program, trials, run, concurrency
        self.share_judgements, self.keep_trees, self.commit, self.aside = share_judgements, keep_trees, commit, Aside()
        wanted = {(seed, task.id): (seed, task) for seed, task in trials}
        self.total = len(wanted)
        self.budget = None if program.budget is None else program.budget.to_dict()
        self.results = {name: result for name, result in run.own.results.items()
                        if name in wanted and self._stands(result)}
        self.before = len(self.results)
        for (seed, task), result in self.results.items():
            run.tally.known(result)
            self._release(seed, task)
        self.todo = [Trial(order, seed, task) for order, (seed, task) in enumerate(wanted.values())
                     if (seed, task.id) not in self.results]
        self.started = time.perf_counter()
        self.reports = Reports(progress, self.status)

    async def finished(self, result: TaskResult, final: bool = True) -> None:
        """Write a result down, then use it. One that the run's own budget cut short is not `final`: it is done again
        when the journal is continued. One that holds what is no JSON is a failed task. Raises JournalError where it
        cannot be written."""
        if self.run.journal and final:
            try:
                await self._write(self.run.journal, result)
            except Unwritable as error:
                result = replace(result, answer=None, trajectory=[], tree=None, error=f"JournalError: {error}")
                await self._write(self.run.journal, result)
        self.results[result.seed, result.task] = result
        self._release(result.seed, result.task)
        self.run.tally.finished(result)
        self.reports.due()

    async def _write(self, journal: Journal, result: TaskResult) -> None:
        if result.tree is None:
            journal.result(result, self.budget)
        else:
            await self.aside(journal.result, result, self.budget)

    def ordered(self) -> list[TaskResult]:
        """A result for every trial that was asked for, in that order."""
        return [self.results[seed, task.id] for seed, task in self.trials]

    def status(self) -> Status:
        tally, seconds = self.run.tally, time.perf_counter() - self.started
        new, left = tally.done - self.before, self.total - tally.done
        return Status(done=tally.done, total=self.total, failed=tally.failed, states=tally.states, calls=tally.calls,
                      tokens=tally.tokens, dollars=tally.dollars, in_flight=len(self.run.flying), seconds=seconds,
                      seconds_left=seconds / new * left if new else 0.0 if not left else None)

    def _stands(self, known: TaskResult) -> bool:
        """Whether a result of an earlier run is not to be had again from the journal's replies: no failure, not cut by
        another budget, nothing left to be taken, and with its tree where trees are wanted."""
        lacking = (self.commit and known.untaken is not None) or (self.keep_trees and known.tree is None)
        return known.error is None and not lacking and (
            known.ended is None or self.run.own.budgets[known.seed, known.task] == self.budget)

    def _release(self, seed: int, task: str) -> None:
        """Forget the replies that only this trial could ask for again: its draws depend on seed and task."""
        if not self.share_judgements:
            self.run.release(seed, task)
