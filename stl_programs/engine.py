"""Running searches: many tasks at once, every finished one written down, none run twice.

`run_tasks` is the only door: rollouts, evaluations and single calls pass through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stl_programs.environments.base import Environment, sealed_reward
from stl_programs.errors import JournalError, StlError
from stl_programs.records import Task, Usage
from stl_programs.tree import Found

T = TypeVar("T")


class Search(Protocol):
    """What the engine runs: a search program."""

    environment: Environment

    @property
    def information(self) -> str:
        """Either "reward-free" or what the search may see beyond that."""

    async def search(self, task: Task) -> Found:
        """Search one task. Raises StlError when it cannot be finished."""


@dataclass
class TaskResult:
    """The outcome of one task: an answer, or the reason why there is none. JSON-ready."""

    task: str
    answer: str | None = None
    trajectory: list[str] = field(default_factory=list)
    error: str | None = None
    states_expanded: int = 0
    states_judged: int = 0
    seconds: float = 0.0
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)
    tree: dict[str, Any] | None = None


@dataclass
class Context:
    """What the modules of one task share: a source of randomness, a memory of judgements, a bill."""

    seed: int
    scope: str
    """Draws of one prompt differ between scopes; judgements are shared within one."""
    memory: dict[Any, asyncio.Task[Any]] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)

    def draw_seed(self, *parts: object) -> int:
        """A 63-bit seed that depends on the run's seed, the scope and `parts` alone."""
        text = "\x1f".join(map(str, (self.seed, self.scope, *parts)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

    def random(self, *parts: object) -> random.Random:
        return random.Random(self.draw_seed(*parts))

    def bill(self, role: str, usage: Usage) -> None:
        self.usage.setdefault(role, Usage()).add(usage)

    async def once(self, key: Any, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """`make()`, but once per key: later and concurrent askers get the same result. A failure is not remembered."""
        if key not in self.memory:
            self.memory[key] = asyncio.ensure_future(make())
        try:
            return await asyncio.shield(self.memory[key])
        except StlError:
            self.memory.pop(key, None)
            raise


_context: ContextVar[Context | None] = ContextVar("stl_context", default=None)


def context() -> Context:
    """The context of the running task; a fresh one outside any run."""
    current = _context.get()
    if current is None:
        current = Context(seed=0, scope="")
        _context.set(current)
    return current


async def run_tasks(
    program: Search,
    tasks: Sequence[Task],
    *,
    seed: int = 0,
    concurrency: int = 32,
    journal: Path | None = None,
    fingerprint: dict[str, Any] | None = None,
    share_judgements: bool = False,
    keep_trees: bool = False,
    progress: Callable[[int, int, TaskResult], None] | None = None,
) -> list[TaskResult]:
    """Search every task, at most `concurrency` at a time; results in the order of `tasks`.

    Args:
        seed: of all draws and tie-breaks. Results depend on it and not on timing, up to the rounding of a batched
            model, which may tip a draw now and then.
        progress: called with (finished, all, result) after every task.
        journal: a JSON Lines file. Finished tasks found there are not run again; newly finished ones are appended.
        fingerprint: what must be equal for a journal to be continued (models, settings).
        share_judgements: one judgement per state for the whole run. For rollouts only, and only where the environment
            says that values do not depend on the task.

    Raises JournalError for a journal of another run. A task that fails is a result with `error`; Ctrl-C and
    cancellation pass through with all finished tasks journaled.
    """
    if share_judgements and not program.environment.task_free_values:
        raise StlError(f"share_judgements: values of {program.environment.name} depend on the task")
    log = Journal(journal, {"seed": seed, **(fingerprint or {})}) if journal else None
    results: dict[str, TaskResult] = dict(log.results) if log else {}
    shared: dict[Any, asyncio.Task[Any]] = {}
    gate = asyncio.Semaphore(concurrency)
    todo = [task for task in tasks if task.id not in results]
    if progress and (finished := [task for task in tasks if task.id in results]):
        progress(len(finished), len(tasks), results[finished[-1].id])

    async def run_one(task: Task) -> None:
        async with gate:
            current = Context(seed, scope="" if share_judgements else task.id)
            if share_judgements:
                current.memory = shared
            result = await _search(program, task, current, keep_trees)
            if log:
                log.append(result)
            results[task.id] = result
            if progress:
                progress(sum(t.id in results for t in tasks), len(tasks), result)

    try:
        async with asyncio.TaskGroup() as group:
            for task in todo:
                group.create_task(run_one(task))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        for judgement in shared.values():
            judgement.cancel()
        if log:
            log.close()
    return [results[task.id] for task in tasks]


async def _search(program: Search, task: Task, current: Context, keep_trees: bool) -> TaskResult:
    started = time.perf_counter()
    _context.set(current)
    seal = sealed_reward() if program.information == "reward-free" else contextlib.nullcontext()
    try:
        with seal:
            found = await program.search(task)
    except StlError as error:
        return TaskResult(task.id, error=f"{type(error).__name__}: {error}", seconds=time.perf_counter() - started,
                          usage={role: usage.to_dict() for role, usage in current.usage.items()})
    return TaskResult(
        task.id, found.answer, list(found.leaf.state.history),
        states_expanded=sum(1 for _ in found.tree.expanded()),
        states_judged=sum(node.estimate is not None for node in found.tree.nodes),
        seconds=time.perf_counter() - started,
        usage={role: usage.to_dict() for role, usage in current.usage.items()},
        tree=found.tree.to_dict() if keep_trees else None)


class Journal:
    """Finished tasks as JSON Lines behind a header line; a line cut short by a kill is dropped."""

    def __init__(self, path: Path, fingerprint: dict[str, Any]):
        self.path = path
        self.results: dict[str, TaskResult] = {}
        header = {"format": 1, "fingerprint": json.loads(json.dumps(fingerprint, sort_keys=True))}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines, good = self._read()
            if lines and lines[0] != header:
                raise JournalError(f"{path} belongs to another run: its settings are {lines[0].get('fingerprint')}, "
                                   f"these are {header['fingerprint']}; choose another directory or delete it")
            self.results = {row["task"]: TaskResult(**row) for row in lines[1:]}
            if path.exists():
                os.truncate(path, good)
            self._file = path.open("a", encoding="utf-8")
            if not lines:
                self._write(header)
        except OSError as error:
            raise JournalError(f"cannot write the journal {path}: {error.strerror}") from error

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """The complete lines, and how many bytes they take."""
        if not self.path.exists():
            return [], 0
        lines, good = [], 0
        for raw in self.path.read_bytes().splitlines(keepends=True):
            if not raw.endswith(b"\n"):
                break
            try:
                lines.append(json.loads(raw))
            except ValueError:
                raise JournalError(f"{self.path}: line {len(lines) + 1} is not JSON; delete the file to start "
                                   "again") from None
            good += len(raw)
        return lines, good

    def _write(self, row: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise JournalError(f"cannot write the journal {self.path}: {error.strerror}; free some space and run "
                               "again: finished tasks are kept") from error

    def append(self, result: TaskResult) -> None:
        self._write(vars(result))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def run_sync(work: Awaitable[T]) -> T:
    """Await `work` from ordinary code, also inside a notebook's running loop."""

    async def main() -> T:
        return await work

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
