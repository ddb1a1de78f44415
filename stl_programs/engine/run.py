"""Running searches: many tasks at once, every finished call written down, none sent twice.

`run_tasks` is the only door: rollouts, evaluations and single searches pass through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

from stl_programs import models
from stl_programs.construct import Count, Natural, NotNegative, checked
from stl_programs.engine import notices
from stl_programs.engine.budget import Budget
from stl_programs.engine.contained import contained
from stl_programs.engine.context import Run
from stl_programs.engine.job import Job
from stl_programs.engine.journal import Journal
from stl_programs.engine.local import told
from stl_programs.engine.protocols import Executor, Search, executor_of
from stl_programs.engine.reading import read_journal
from stl_programs.engine.recording import Recording
from stl_programs.engine.status import Status
from stl_programs.errors import JournalError, ModelError, SettingError, StlError
from stl_programs.models import Model
from stl_programs.models.artifacts import model_identity
from stl_programs.outside import shown
from stl_programs.records import Task, TaskResult
from stl_programs.version import __version__

T = TypeVar("T")


@checked
async def run_tasks(
    program: Search,
    tasks: Sequence[Task | str | Any],
    *,
    seed: int | Sequence[int] = 0,
    budget: Budget | None = None,
    in_flight: Count = 32,
    in_flight_total: Count | None = None,
    per_endpoint: Mapping[str, int] | None = None,
    concurrency: Count | None = None,
    journal: str | Path | None = None,
    fingerprint: dict[str, Any] | None = None,
    recorded: Sequence[Path] = (),
    offline: bool = False,
    share_judgements: bool = False,
    keep_trees: bool = False,
    retries: Natural = 5,
    backoff: NotNegative = 0.5,
    commit: bool = False,
    executor: str | Executor = "local",
    progress: Callable[[Status], None] | None = None,
) -> list[TaskResult]:
    """Search every task; results in the order of `tasks`, for one seed after the other. A task given twice is searched
    once.

    Args:
        tasks: Tasks, their texts, or dspy Examples with a `task`.
        seed: of all draws and tie-breaks; with several, every task is tried once per seed, all side by side. Results
            of a search without parallel simulations depend on it and not on timing, up to the rounding of a batched
            model, which may tip a draw now and then.
        budget: of the whole run, beside that of the program for each task. When it is spent, open tasks end with their
            best answer so far and the others at their start; running again with a larger one goes on. What a
            continued journal has spent counts, failed requests too.
        in_flight: requests at once to one endpoint; `per_endpoint` sets single ones apart; `in_flight_total` bounds
            all. concurrency: tasks open at once; enough to keep the endpoint busy by default.
        journal: a JSON Lines file. What is found there is not done or paid again; what is new is appended.
        fingerprint: what must be equal for a journal to be continued, beside the program, its settings (its budgets
            may grow), its environment, its models and the version of this package; an entry "program" stands in place
            of all but the environment.
        recorded: journals of other runs (same seed): calls that they hold are answered from there, for nothing.
        offline: send nothing at all; a call that no journal holds fails its task.
        share_judgements: one judgement per state for the whole run. For rollouts only, and only where the environment
            says that values do not depend on the task.
        retries, backoff: of requests that failed transiently; see `Run`.
        commit: take the chosen actions that cannot be undone, each after its search.
        executor: who runs the trials: "local", this process; the kind of another `Executor`, or such an object.
        progress: called as tasks end, a few times a second at most, and with the status at the end of the run;
            `show_progress` prints a live line. One that fails is warned of, and not called again.

    Raises JournalError for a journal of another run, and ModelError, before anything is sent, for a budget of dollars
    where a model's price is unknown. A task that fails is a result with `error`; Ctrl-C and
    cancellation pass through with everything finished journaled.
    """
    if share_judgements and not program.environment.task_free_values:
        raise StlError(f"share_judgements: values of {program.environment.name} depend on the task")
    if isinstance(tasks, (str, Task)) or not isinstance(tasks, Iterable):
        raise SettingError(f"run_tasks(tasks={shown(tasks)}): it should be a list of tasks")
    seeds = list(seed) if isinstance(seed, Sequence) else [seed]
    if wrong := [one for one in seeds if not isinstance(one, int) or isinstance(one, bool)]:
        raise SettingError(f"run_tasks(seed={wrong[0]!r}): it should be a whole number, or several")
    for endpoint, most in (per_endpoint or {}).items():
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise SettingError(f"run_tasks(per_endpoint={{{endpoint!r}: {most!r}}}): it should be at least 1")
    runner = executor_of(executor)
    if not offline:
        _check_prices(program, budget)
        _check_counted(program, budget)
        _warm_up(program)
    others = Recording()
    for path in recorded:
        read_journal(Path(path), others)
    asked = [program.environment.as_task(task) for task in tasks]
    log = Journal(Path(journal), _fingerprint(program, fingerprint or {})) if journal else None
    run = Run(budget=budget, in_flight=in_flight, in_flight_total=in_flight_total,
              per_endpoint=per_endpoint, journal=log, recorded=others, offline=offline, retries=retries,
              backoff=backoff)
    run.know(_models(program))
    trials = [(one, task) for one in seeds for task in asked]
    job = Job(program, trials, run, concurrency=concurrency or max(64, 2 * in_flight * _servers(program)),
              share_judgements=share_judgements, keep_trees=keep_trees, commit=commit,
              progress=progress)
    try:
        if budget is not None and budget.dollars is not None:
            _check_spent(run)
        async with _transport(), job.reports.ticking():
            await runner.run(job)
    except JournalError as error:
        raise (log.told(error) if log else error) from None
    finally:
        job.aside.close()
        await _closed(program)
        if log:
            log.close()
    results = job.ordered()
    notices.warn(results)
    return results


async def _closed(program: Search) -> None:
    """A world that fails to close spoils no result."""
    try:
        await contained(program.environment.aclose())
    except Exception as error:
        warnings.warn(f"{program.environment.name} was not closed: {told(error)}", RuntimeWarning, stacklevel=2)


BESIDE = frozenset({"budget", "traces", "train", "path"})
"""Entries of a saved program that change no answer: a journal may be continued with others."""


def identity(program: Search) -> dict[str, Any]:
    """What a journal belongs to by default: the program with its settings but for its budgets, its environment, its
    models (server, further fields, weights) and the version of this package."""
    dump = getattr(program, "dump_state", None)
    about = type(program).__name__ if dump is None else _answering(dump())
    found: dict[str, list[Any]] = {}
    for model in _models(program):
        known = found.setdefault(model.name, [])
        if (one := model_identity(model)) not in known:
            known.append(one)
    return {"program": about, "environment": program.environment.identity(), "models": {
        name: known[0] if len(known) == 1 else known for name, known in found.items()}, "version": __version__}


def _fingerprint(program: Search, given: dict[str, Any]) -> dict[str, Any]:
    if "program" in given:
        return {"environment": program.environment.identity()} | given
    return identity(program) | given


def _models(program: Search) -> list[Model]:
    """None where one cannot be loaded: a journal may be looked at without it."""
    try:
        return program.models()
    except StlError:
        return []


def _answering(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _answering(entry) for name, entry in state.items() if name not in BESIDE}
    return [_answering(entry) for entry in state] if isinstance(state, list) else state


def _check_prices(program: Search, budget: Budget | None) -> None:
    """Raises ModelError where dollars are bounded, and a model's price is unknown."""
    limits = [limit.dollars for limit in (budget, program.budget) if limit is not None and limit.dollars is not None]
    if limits and (unknown := sorted({model.name for model in program.models() if model.prices() is None})):
        raise ModelError(f"Budget(dollars={limits[0]:g}): the price of {', '.join(unknown)} is unknown; register it "
                         "with litellm.register_model, name it in the file of STL_PRICES, or limit tokens instead")


def _check_counted(program: Search, budget: Budget | None) -> None:
    """Raises StlError where calls are bounded, and a program that can tell makes some that pass by the engine."""
    check = getattr(program, "check_counted", None)
    if check is not None and budget is not None and budget.counts_calls:
        check()


def _servers(program: Search) -> int:
    """Of the endpoint that has most, its URLs with commas between them; 1 where a model cannot be loaded."""
    return max(((model.endpoint or "").count(",") + 1 for model in _models(program)), default=1)


def _warm_up(program: Search) -> None:
    """Import what prices need before any clock runs, and off the event loop's time."""
    with contextlib.suppress(StlError):
        for model in program.models():
            model.prices()


def _check_spent(run: Run) -> None:
    """Raises ModelError where a continued journal holds calls that had no price."""
    unknown = {model for bills in run.before.values() for (_, model), usage in bills.items()
               if usage.dollars is None or usage.possibly_paid_dollars is None}
    if unknown:
        raise ModelError(f"a budget of dollars, and the journal holds calls to {', '.join(sorted(unknown))} from when "
                         "their price was unknown; limit tokens instead, or choose another directory")


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


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` from ordinary code, also inside a notebook's running loop.

    Ctrl-C (KeyboardInterrupt) cancels it, waits until it has closed what it opened, and is raised. What dspy was told
    by `dspy.context` holds for it too.
    """

    async def main() -> T:
        try:
            return await work
        finally:
            await models.close_sessions()

    return _in_a_thread(main) if _inside_a_loop() else asyncio.run(main())


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_a_thread(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await `main()` on a loop of its own in a thread, as this one's is busy with the caller."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()
    outcome: Future[T] = Future()

    async def watched() -> T:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await main()

    def target() -> None:
        try:
            outcome.set_result(asyncio.run(watched()))
        except BaseException as error:  # handed to the caller below
            outcome.set_exception(error)

    threading.Thread(target=copy_context().run, args=(target,), name="run_sync", daemon=True).start()
    try:
        wait([outcome])
    except BaseException:  # Ctrl-C falls into the thread that waits
        loop, task = begun.result()
        if task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: it was finished just now
                loop.call_soon_threadsafe(task.cancel)
        wait([outcome])
        raise
    return outcome.result()
