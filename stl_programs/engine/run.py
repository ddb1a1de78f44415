"""Running searches: many tasks at once, every finished call written down, none sent twice.

`run_tasks` is the only door: rollouts, evaluations and single searches pass through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stl_programs import models
from stl_programs.engine.budget import Budget, Ledger
from stl_programs.engine.context import Context, Run, enter
from stl_programs.engine.journal import Journal, Recording, read_journal
from stl_programs.engine.status import Status
from stl_programs.environments.base import Environment, sealed_reward
from stl_programs.errors import ModelError, StlError
from stl_programs.models import Model
from stl_programs.records import Task, TaskResult, Usage
from stl_programs.tree import Found

T = TypeVar("T")
TICK = 0.5
"""Seconds between two reports of progress while tasks are running."""


class Search(Protocol):
    """What the engine runs: a search program."""

    environment: Environment
    budget: Budget | None

    @property
    def information(self) -> str:
        """Either "reward-free" or what the search may see beyond that."""

    async def search(self, task: Task) -> Found:
        """Search one task. Raises StlError when it cannot be finished."""

    def models(self) -> list[Model]:
        """The models that it may ask."""


async def run_tasks(
    program: Search,
    tasks: Sequence[Task],
    *,
    seed: int | Sequence[int] = 0,
    budget: Budget | None = None,
    in_flight: int = 32,
    in_flight_total: int | None = None,
    per_endpoint: Mapping[str, int] | None = None,
    concurrency: int | None = None,
    journal: Path | None = None,
    fingerprint: dict[str, Any] | None = None,
    recorded: Sequence[Path] = (),
    offline: bool = False,
    share_judgements: bool = False,
    keep_trees: bool = False,
    retries: int = 5,
    backoff: float = 0.5,
    commit: bool = False,
    executor: Any = "local",
    progress: Callable[[Status], None] | None = None,
) -> list[TaskResult]:
    """Search every task; results in the order of `tasks`, for one seed after the other. A task given twice is searched
    once.

    Args:
        seed: of all draws and tie-breaks; with several, every task is tried once per seed, all side by side. Results
            of a search without parallel simulations depend on it and not on timing, up to the rounding of a batched
            model, which may tip a draw now and then.
        budget: of the whole run, beside that of the program for each task. When it is spent, open tasks end with their
            best answer so far and the others at their start; running again with a larger one goes on. What a
            continued journal has spent counts, failed requests too.
        in_flight: requests at once to one endpoint; `per_endpoint` sets single ones apart; `in_flight_total` bounds
            all. concurrency: tasks open at once; enough to keep the endpoint busy by default.
        journal: a JSON Lines file. What is found there is not done or paid again; what is new is appended.
        fingerprint: what must be equal for a journal to be continued (models, settings).
        recorded: journals of other runs (same seed): calls that they hold are answered from there, for nothing.
        offline: send nothing at all; a call that no journal holds fails its task.
        share_judgements: one judgement per state for the whole run. For rollouts only, and only where the environment
            says that values do not depend on the task.
        retries, backoff: of requests that failed transiently; see `Run`.
        progress: called after every task, and twice a second; `show_progress` prints a live line.

    Raises JournalError for a journal of another run, and ModelError, before anything is sent, for a budget of dollars
    where a model's price is unknown. A task that fails is a result with `error`; Ctrl-C and
    cancellation pass through with everything finished journaled.
    """
    if share_judgements and not program.environment.task_free_values:
        raise StlError(f"share_judgements: values of {program.environment.name} depend on the task")
    if in_flight < 1 or (concurrency is not None and concurrency < 1):
        raise ValueError(f"in_flight={in_flight}, concurrency={concurrency}: each at least 1")
    if not offline:
        _check_prices(program, budget)
    others = Recording()
    for path in recorded:
        read_journal(path, others)
    log = Journal(journal, fingerprint or {}) if journal else None
    run = Run(budget=budget, in_flight=in_flight, in_flight_total=in_flight_total,
              per_endpoint=per_endpoint, journal=log, recorded=others, offline=offline, retries=retries,
              backoff=backoff)
    seeds = [seed] if isinstance(seed, int) else list(seed)
    trials = [(one, task) for one in seeds for task in tasks]
    shared = {one: dict[Any, Any]() for one in seeds} if share_judgements else None
    batch = _Batch(program, trials, run, shared=shared, keep_trees=keep_trees, progress=progress)
    try:
        if budget is not None and budget.dollars is not None:
            _check_spent(run)
        async with _transport():
            await batch.work(concurrency or max(64, 2 * in_flight * _servers(program)))
    finally:
        if log:
            log.close()
    return batch.ordered()


def _check_prices(program: Search, budget: Budget | None) -> None:
    """Raises ModelError where dollars are bounded, and a model's price is unknown."""
    limits = [limit.dollars for limit in (budget, program.budget) if limit is not None and limit.dollars is not None]
    if limits and (unknown := sorted({model.name for model in program.models() if model.prices() is None})):
        raise ModelError(f"Budget(dollars={limits[0]:g}): the price of {', '.join(unknown)} is unknown; register it "
                         "with litellm.register_model, name it in the file of STL_PRICES, or limit tokens instead")


def _servers(program: Search) -> int:
    """Of the endpoint that has most, its URLs with commas between them; 1 where a model cannot be loaded."""
    try:
        return max(((model.endpoint or "").count(",") + 1 for model in program.models()), default=1)
    except StlError:
        return 1


def _check_spent(run: Run) -> None:
    """Raises ModelError where a continued journal holds calls that had no price."""
    unknown = {model for bills in run.before.values() for (_, model), usage in bills.items()
               if usage.dollars is None or usage.possibly_paid_dollars is None}
    if unknown:
        raise ModelError(f"a budget of dollars, and the journal holds calls to {', '.join(sorted(unknown))} from when "
                         "their price was unknown; limit tokens instead, or choose another directory")


class _Batch:
    """The trials of one run, each a seed and a task: which are done, which are open."""

    def __init__(self, program: Search, trials: Sequence[tuple[int, Task]], run: Run, *,
                 shared: dict[int, dict[Any, Any]] | None, keep_trees: bool,
                 progress: Callable[[Status], None] | None):
        self.program, self.trials, self.run, self.shared = program, trials, run, shared
        self.keep_trees, self.progress = keep_trees, progress
        self.started = time.perf_counter()
        self.wanted = {(seed, task.id): (seed, task) for seed, task in trials}
        self.results = {name: result for name, result in run.own.results.items() if name in self.wanted}
        self.before = len(self.results)
        self.open: set[int] = set()
        self.contexts: dict[int, Context] = {}
        self.states, self.finished = 0, Usage()
        for result in self.results.values():
            self._book(result)

    async def work(self, concurrency: int) -> None:
        todo = iter([(order, seed, task) for order, (seed, task) in enumerate(self.wanted.values())
                     if (seed, task.id) not in self.results])
        ticker = asyncio.ensure_future(self._tick()) if self.progress else None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(self.wanted) - self.before)):
                    group.create_task(self._worker(todo))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            if ticker:
                ticker.cancel()
            leftovers = [work.task for work in self.run.flying.values()]
            for task in leftovers:
                task.cancel()
            await asyncio.gather(*leftovers, return_exceptions=True)
        self._report()

    def ordered(self) -> list[TaskResult]:
        return [self.results[seed, task.id] for seed, task in self.trials]

    async def _worker(self, todo: Iterator[tuple[int, int, Task]]) -> None:
        for order, seed, task in todo:
            result, whole = await self._search(order, seed, task)
            if self.run.journal and whole:
                self.run.journal.result(result)
            self._book(result)
            self.results[seed, task.id] = result
            self._report()

    async def _search(self, order: int, seed: int, task: Task) -> tuple[TaskResult, bool]:
        """The result of one trial, and whether it is final: one that the run's own budget cut short is not."""
        own = self.program.budget or Budget()
        now = time.monotonic()
        current = Context(
            self.run, seed, scope="" if self.shared is not None else task.id, task=task.id, order=order,
            ledger=Ledger(own, "task"), deadline=None if own.seconds is None else now + own.seconds)
        if self.shared is not None:
            current.memory = self.shared[seed]
        enter(current)
        self.contexts[order] = current
        started = time.perf_counter()
        result = TaskResult(task.id, seed)
        try:
            if self.run.deadline is not None and now >= self.run.deadline:
                raise StlError("not begun: the run's budget of seconds is spent")
            with sealed_reward() if self.program.information == "reward-free" else contextlib.nullcontext():
                found = await self.program.search(task)
            result.answer, result.trajectory, result.ended = found.answer, list(found.leaf.state.history), found.ended
            result.states_expanded = sum(1 for _ in found.tree.expanded())
            result.states_judged = sum(node.estimate is not None for node in found.tree.nodes)
            if self.keep_trees:
                found.tree.paid = current.costs
                result.tree = found.tree.to_dict()
        except StlError as error:
            result.error = f"{type(error).__name__}: {error}"
        finally:
            result.seconds = time.perf_counter() - started
            await current.stop()
            del self.contexts[order]
        result.usage = {role: usage.to_dict() for role, usage in current.usage.items()}
        for (role, model), usage in current.usage_by_model.items():
            result.usage_by_model.setdefault(role, {})[model] = {
                name: amount for name, amount in usage.to_dict().items() if amount != 0}
        spent_by_others = f"{result.ended or ''}{result.error or ''}"
        return result, not ("the run's budget" in spent_by_others or "module's budget" in spent_by_others)

    def _book(self, result: TaskResult) -> None:
        self.states += result.states_expanded
        for usage in result.usage.values():
            known = {**usage, "dollars": usage["dollars"] or 0.0}
            self.finished.add(Usage(**known))

    def status(self) -> Status:
        used = replace(self.finished)
        for current in self.contexts.values():
            for usage in current.usage.values():
                used.add(replace(usage, dollars=usage.dollars or 0.0))
        seconds = time.perf_counter() - self.started
        new = len(self.results) - self.before
        left = len(self.wanted) - len(self.results)
        return Status(
            done=len(self.results), total=len(self.wanted),
            failed=sum(result.error is not None for result in self.results.values()),
            states=self.states + int(sum(c.ledger.spent["states"] for c in self.contexts.values())),
            calls=used.calls, tokens=used.prompt_tokens + used.completion_tokens, dollars=used.dollars or 0.0,
            in_flight=len(self.run.flying), seconds=seconds,
            seconds_left=seconds / new * left if new else 0.0 if not left else None)

    def _report(self) -> None:
        if self.progress:
            self.progress(self.status())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._report()


_running: dict[asyncio.AbstractEventLoop, int] = {}


@contextlib.asynccontextmanager
async def _transport():
    """Connections live as long as some run of this event loop does."""
    loop = asyncio.get_running_loop()
    _running[loop] = _running.get(loop, 0) + 1
    try:
        yield
    finally:
        _running[loop] -= 1
        if not _running[loop]:
            del _running[loop]
            await models.close_sessions()


def run_sync(work: Awaitable[T]) -> T:
    """Await `work` from ordinary code, also inside a notebook's running loop."""

    async def main() -> T:
        try:
            return await work
        finally:
            await models.close_sessions()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    outcome: list[Any] = []

    def target() -> None:
        try:
            outcome.extend((True, asyncio.run(main())))
        except BaseException as error:  # handed to the caller below
            outcome.extend((False, error))

    thread = threading.Thread(target=copy_context().run, args=(target,))
    thread.start()
    thread.join()
    if not outcome[0]:
        raise outcome[1]
    return outcome[1]
