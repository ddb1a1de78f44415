"""The executor of this process: trials side by side on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stl_programs.display import clean_lines
from stl_programs.engine.budget import Budget, Ledger
from stl_programs.engine.contained import Escaped, contained
from stl_programs.engine.context import Context, enter
from stl_programs.engine.job import Job, Trial
from stl_programs.engine.protocols import Executor
from stl_programs.environments.base import sealed_reward
from stl_programs.errors import BudgetSpent, StlError
from stl_programs.records import TaskResult
from stl_programs.secrets import masked
from stl_programs.tree import Found

PACKAGE = str(Path(__file__).parents[1])
NO_LIMIT = Budget()
LONGEST_TRACEBACK = 10_000
"""Characters of a traceback that a result keeps."""
Memories = dict[int, dict[Any, Any]]
"""Judgements by seed, then by what was judged."""


class LocalExecutor(Executor):
    """Keeps `job.concurrency` trials open; their model calls overlap as far as the run's bounds let them."""

    kind = "local"

    async def run(self, job: Job) -> None:
        todo, shared = iter(job.todo), defaultdict[int, dict[Any, Any]](dict) if job.share_judgements else None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(job.concurrency, len(job.todo))):
                    group.create_task(_work(job, todo, shared))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            leftovers = [work.task for work in job.run.flying.values()]
            for task in leftovers:
                task.cancel()
            await asyncio.gather(*leftovers, return_exceptions=True)


async def _work(job: Job, todo: Iterator[Trial], shared: Memories | None) -> None:
    for trial in todo:
        result, final = await _search(job, trial, shared)
        await job.finished(result, final=final)


async def _search(job: Job, trial: Trial, shared: Memories | None) -> tuple[TaskResult, bool]:
    """One trial within its budget: a result, whatever becomes of it; and whether it is final, as one that another's
    budget than the task's own cut short is not."""
    current = _context_of(job, trial, shared)
    result, found = TaskResult(trial.task.id, trial.seed), None
    started, cut_by = time.perf_counter(), None
    try:
        if job.run.deadline is not None and time.monotonic() >= job.run.deadline:
            raise BudgetSpent("not begun: the run's budget of seconds is spent", owner="run")
        with sealed_reward() if job.program.information == "reward-free" else contextlib.nullcontext():
            found = await contained(job.program.search(trial.task))
        _record(result, found)
        cut_by = found.ended_by
        if job.commit:
            found = await contained(job.program.commit(found))
            _record(result, found)
    except BudgetSpent as spent:
        result.error, cut_by = told(spent), spent.owner
    except (Exception, asyncio.CancelledError) as error:  # of a part of the program: the task's, and no other's
        if isinstance(error, asyncio.CancelledError) and _cancelled():
            raise
        result.error = told(error)
        if not _on_purpose(error):
            result.traceback = clean_lines(masked("".join(traceback.format_exception(_raised(error)))))[
                -LONGEST_TRACEBACK:]
    finally:
        result.seconds = time.perf_counter() - started
        await current.stop()
    if found is not None and job.keep_trees:
        found.tree.paid = current.costs
        result.tree = await job.aside(found.tree.to_dict)
    _bill(result, current)
    result.notes = dict(current.notes)
    return result, cut_by in (None, "task")


def _cancelled() -> bool:
    """Whether this task is cancelled from outside, and not by what a part of the program awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _on_purpose(error: BaseException) -> bool:
    """Whether this package raised it, in words that say all; a world's own error comes with its traceback."""
    raised = traceback.extract_tb(error.__traceback__)[-1:]
    return isinstance(error, StlError) and all(frame.filename.startswith(PACKAGE) for frame in raised)


def _raised(error: BaseException) -> BaseException:
    """What a part of the program raised."""
    return error.__cause__ if isinstance(error, Escaped) and error.__cause__ else error


def told(error: BaseException) -> str:
    """An error in one line, for a terminal too; one that nobody raised on purpose with the line that it comes from."""
    error = _raised(error)
    try:
        text = clean_lines(masked(str(error)))
    except Exception as worse:
        text = f"(its text cannot be read: {type(worse).__name__})"
    if isinstance(error, StlError):
        return f"{type(error).__name__}: {text}"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    text = ' '.join(text.split()) or ("something that it awaited" if isinstance(error, asyncio.CancelledError) else "")
    return f"{type(error).__name__}: {text}" + "".join(
        f" ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})" for frame in last)


def _context_of(job: Job, trial: Trial, shared: Memories | None) -> Context:
    budget = job.program.budget or NO_LIMIT
    current = Context(
        job.run, trial.seed, scope=trial.task.id if shared is None else "", task=trial.task.id, order=trial.order,
        ledger=Ledger(budget, "task"),
        deadline=None if budget.seconds is None else time.monotonic() + budget.seconds,
        memory={} if shared is None else shared[trial.seed])
    enter(current)
    return current


def _record(result: TaskResult, found: Found) -> None:
    result.answer, result.trajectory, result.ended = found.answer, list(found.leaf.state.history), found.ended
    result.states_expanded = sum(1 for _ in found.tree.expanded())
    leaf = found.leaf
    result.untaken = leaf.action if leaf.state.untaken else None
    result.committed = found.committed
    result.states_judged = sum(node.estimate is not None for node in found.tree.nodes)


def _bill(result: TaskResult, current: Context) -> None:
    result.usage = {role: usage.to_dict() for role, usage in current.usage.items()}
    for (role, model), usage in current.usage_by_model.items():
        result.usage_by_model.setdefault(role, {})[model] = {
            name: amount for name, amount in usage.to_dict().items() if amount != 0}
