"""What a running search sees: the run it belongs to, its task's randomness, memory, ledger and bill."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stl_programs.engine.budget import Bank, Budget, Cost, Ledger
from stl_programs.engine.gate import Gate
from stl_programs.engine.journal import Journal, Recording
from stl_programs.errors import BudgetSpent, JournalError
from stl_programs.records import Usage

T = TypeVar("T")


class Run:
    """What all tasks of a run share.

    Args:
        in_flight, in_flight_total, per_endpoint: bounds on requests at once; see `Gate`.
        retries: how often a request that failed transiently is sent again; `backoff`: seconds before the first time,
            doubled every time.
        recorded: replies of other runs, used instead of sending the same request; `offline`: never send any.
    """

    def __init__(self, *, budget: Budget | None = None, in_flight: int = 32,
                 in_flight_total: int | None = None, per_endpoint: Mapping[str, int] | None = None, retries: int = 5,
                 backoff: float = 0.5, journal: Journal | None = None, recorded: Recording | None = None,
                 offline: bool = False):
        self.retries, self.backoff, self.offline = retries, backoff, offline
        self.gate = Gate(in_flight, in_flight_total, per_endpoint)
        self.bank, self.journal = Bank(), journal
        self.own = journal.recording if journal else Recording()
        self.recorded = recorded or Recording()
        self.flying: dict[str, asyncio.Task[Any]] = {}
        self.ledger = Ledger(budget or Budget(), "run")
        self.modules: dict[int, Ledger] = {}
        self.before: dict[str, Cost] = {}
        """What finished tasks of a continued journal cost, by role."""
        self.deadline = None if budget is None or budget.seconds is None else time.monotonic() + budget.seconds
        for sent in self.own.possibly_paid:
            tokens, dollars = sent["bound"]
            self.ledger.book(Cost(calls=1, tokens=tokens, dollars=dollars))
        self.ledger.book(Cost(calls=self.own.refused))
        self.billed: set[str] = set()
        """Keys of the replies of `own` that were billed in this run: each is paid once."""

    def module_ledger(self, module: object, role: str, budget: Budget | None) -> Ledger | None:
        """The ledger of a module of the program, over the whole run; None for a module without a budget."""
        if budget is None:
            return None
        if id(module) not in self.modules:
            ledger = self.modules[id(module)] = Ledger(budget, f"{role} module")
            ledger.book(self.before.get(role, Cost()))
        return self.modules[id(module)]


@dataclass
class Context:
    """What the modules of one trial of one task share. Judgements are remembered, and draws differ, per `scope`."""

    run: Run = field(default_factory=Run)
    seed: int = 0
    scope: str = ""
    task: str = ""
    order: int = 0
    """Waiting requests of lower order go first."""
    ledger: Ledger = field(default_factory=lambda: Ledger(Budget(), "task"))
    deadline: float | None = None
    memory: dict[Any, Any] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    costs: dict[Any, Usage] = field(default_factory=dict)
    """What was paid about each state key."""
    sending: set[asyncio.Task[Any]] = field(default_factory=set)

    def draw_seed(self, *parts: object) -> int:
        """A 63-bit seed that depends on the seed, the scope and `parts` alone."""
        text = "\x1f".join(map(str, (self.seed, self.scope, *parts)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

    def random(self, *parts: object) -> random.Random:
        return random.Random(self.draw_seed(*parts))

    def bill(self, role: str, usage: Usage, about: Any = None) -> None:
        self.usage.setdefault(role, Usage()).add(usage)
        if about is not None:
            self.costs.setdefault(about, Usage()).add(usage)

    async def once(self, key: Any, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """`make()`, but once per key: later and concurrent askers get the same result. A failure is not remembered."""
        found = self.memory.get(key)
        if found is None:
            found = self.memory[key] = asyncio.ensure_future(make())
            found.add_done_callback(lambda task: self._remember(key, task))
        return await asyncio.shield(found) if isinstance(found, asyncio.Task) else found[0]

    def _remember(self, key: Any, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            self.memory.pop(key, None)
        else:
            self.memory[key] = (task.result(),)

    def spend_state(self) -> None:
        """Book one expanded state. Raises BudgetSpent where no more may be expanded."""
        both = self.run.ledger, self.ledger
        for ledger in both:
            if ledger.limits and (name := ledger.lacking(_STATE)) is not None:
                raise ledger.refusal(name, _STATE)
        for ledger in both:
            ledger.spent["states"] += 1

    @asynccontextmanager
    async def until_deadline(self) -> AsyncIterator[None]:
        """Cancel the block when the task's or the run's seconds are over, and raise BudgetSpent."""
        limits = [limit for limit in (self.deadline, self.run.deadline) if limit is not None]
        if not limits:
            yield
            return
        try:
            async with asyncio.timeout(max(min(limits) - time.monotonic(), 0.0)) as clock:
                yield
        except TimeoutError:
            if not clock.expired():  # somebody else's
                raise
            owner = "task" if self.deadline == min(limits) else "run"
            raise BudgetSpent(f"the {owner}'s budget of seconds is spent") from None

    async def stop(self) -> None:
        """Cancel what this task still has in flight."""
        if self.task and not self.scope:
            return  # judgements are shared: another task may be waiting for these
        leftovers = [task for task in (*self.sending, *self.memory.values())
                     if isinstance(task, asyncio.Task) and not task.done()]
        for task in leftovers:
            task.cancel()
        await asyncio.gather(*leftovers, return_exceptions=True)


_STATE = Cost(states=1)
_context: ContextVar[Context | None] = ContextVar("stl_context", default=None)


def context() -> Context:
    """The context of the running task; a fresh one outside any run."""
    current = _context.get()
    if current is None:
        current = Context()
        _context.set(current)
    return current


def enter(current: Context) -> None:
    """Make `current` the context of this asyncio task and of those it starts."""
    _context.set(current)


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Await all of `work` side by side. Nothing is abandoned: the first error is raised when all are finished."""
    if len(work) == 1:
        return [await work[0]]
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


async def rolling(begin: Callable[[], Coroutine[Any, Any, None] | None], parallel: int) -> None:
    """Keep up to `parallel` pieces of work under way, each from `begin()`, until it gives None and all are finished.

    The first error ends it. Where that is a spent budget, what is still under way is finished: it is paid for.
    """
    if parallel == 1:
        while (work := begin()) is not None:
            await work
        return
    flying = set[asyncio.Task[None]]()
    try:
        while True:
            while len(flying) < parallel and (work := begin()) is not None:
                flying.add(asyncio.ensure_future(work))
            if not flying:
                return
            done, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
            errors = [error for task in done if (error := task.exception()) is not None]
            if errors:
                if all(isinstance(error, BudgetSpent) for error in errors):
                    await asyncio.gather(*flying, return_exceptions=True)
                raise errors[0]
    finally:
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


def step_key(*parts: object) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=12).hexdigest()


async def take(environment: Any, state: Any, action: Any) -> Any:
    """T(s, a). Steps of an environment that is not pure are journaled, and never taken twice in a run.

    Raises TaskError for an action that is not possible or not reversible.
    """
    if environment.pure:
        return environment.step(state, action)
    current = context()
    key = step_key(current.task, *state.history, action.text)
    run = current.run

    async def step() -> Any:
        for recording in (run.own, run.recorded):
            if key in recording.steps:
                return environment.restore(state, action, recording.steps[key])
        if run.offline:
            raise JournalError(f"offline: the step {action.text!r} of {current.task!r} is in no journal")
        transition = await environment.astep(state, action)
        if run.journal:
            run.journal.step(key, environment.record(transition))
        return transition

    return await current.once(("step", key), step)
