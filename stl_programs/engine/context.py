"""What a running search sees: the run it belongs to, its task's randomness, memory, ledger and bill."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from stl_programs.display import clean
from stl_programs.engine.bank import Bank
from stl_programs.engine.budget import Budget, Cost, Ledger, cost_of
from stl_programs.engine.contained import begun
from stl_programs.engine.gate import Gate
from stl_programs.engine.journal import Journal
from stl_programs.engine.recording import Recording
from stl_programs.engine.status import Tally
from stl_programs.errors import BudgetSpent
from stl_programs.models import Model
from stl_programs.models.artifacts import model_extra
from stl_programs.models.base import compact
from stl_programs.records import Usage
from stl_programs.secrets import masked

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
        self.flying: dict[str, Work[Any]] = {}
        self.tally = Tally()
        self.ledger = Ledger(budget or Budget(), "run")
        self.modules: dict[int, Ledger] = {}
        self.deadline = None if budget is None or budget.seconds is None else time.monotonic() + budget.seconds
        self.before = self.own.spent()
        """What a continued journal has cost so far, by trial, then by role and model."""
        for bills in self.before.values():
            for usage in bills.values():
                self.ledger.book(cost_of(usage))
        self.ledger.book(self.own.untold)
        for result in self.own.results.values():
            self.ledger.book(Cost(states=result.states_expanded))
        self.asked: set[str] = set()
        """Keys of the replies of `own` that were used in this run: who asks again is answered for nothing."""
        self._servers: dict[str, set[str | None]] = {}
        self._marks: dict[int, tuple[Model, str]] = {}
        self.shown = 0
        """Calls that callbacks were told of."""

    def shows(self, limit: int) -> bool:
        """Whether callbacks are told of one more call."""
        self.shown += 1
        return self.shown <= limit

    def know(self, models: Iterable[Model]) -> None:
        """Models that may be asked: where two of one name are not at one server, their replies are kept apart."""
        for model in models:
            base = getattr(model, "base", model)
            self._servers.setdefault(base.name, set()).add(base.endpoint)

    def mark(self, model: Model) -> str:
        """What tells its requests from those of other models of its name; empty where nothing has to."""
        base = getattr(model, "base", model)
        known = self._marks.get(id(base))
        if known is None:
            self.know([base])
            told = {"extra": model_extra(base), "server": base.endpoint if len(self._servers[base.name]) > 1 else None}
            found = {name: said for name, said in told.items() if said}
            known = self._marks[id(base)] = base, compact(found) if found else ""
        return known[1]

    def release(self, seed: int, task: str) -> None:
        """Forget the replies that one trial paid for. They stay in the journal."""
        self.asked.difference_update(self.own.forget(seed, task))

    def module_ledger(self, module: object, role: str, model: str, budget: Budget | None) -> Ledger | None:
        """The ledger of a module of the program, over the whole run; None for a module without a budget.

        Of a continued journal it holds what the module's role spent on the module's model.
        """
        if budget is None:
            return None
        if id(module) not in self.modules:
            ledger = self.modules[id(module)] = Ledger(budget, f"{role} module")
            for bills in self.before.values():
                if (usage := bills.get((role, model))) is not None:
                    ledger.book(cost_of(usage))
            ledger.book(self.own.untold)
        return self.modules[id(module)]


class Work(Generic[T]):
    """A call or a judgement that several may wait for; the trial that began it pays for it.

    While that trial runs, the work goes on even if nobody waits. Once the trial is over, the work ends with its last
    asker.
    """

    def __init__(self, owner: Context, work: Coroutine[Any, Any, T]):
        self.owner, self.waiting = owner, 0
        self.task = begun(work)
        owner.begun.add(self)
        self.task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        self.owner.begun.discard(self)
        if not task.cancelled():
            task.exception()  # seen, even where every asker has left

    async def wait(self) -> T:
        """Its result. Cancelling an asker does not cancel the work."""
        self.waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self.waiting -= 1
            if self.owner.over and not self.waiting:
                self.task.cancel()


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
    """By role."""
    usage_by_model: dict[tuple[str, str], Usage] = field(default_factory=dict)
    """By role and model: what models were asked, without what became of their words."""
    costs: dict[Any, Usage] = field(default_factory=dict)
    """What was paid about each state key."""
    begun: set[Work[Any]] = field(default_factory=set)
    """What this trial began and is not finished."""
    notes: Counter[str] = field(default_factory=Counter)
    """What went wrong without failing the search, counted."""
    over: bool = False
    """The search has ended; what others wait for may still be under way."""
    closed: bool = False
    """Nothing is under way any more, and the bill is final."""

    def __post_init__(self) -> None:
        before = self.run.before.get((self.seed, self.task), {})
        for (role, model), usage in before.items():
            self.bill(role, usage, model=model)
            self.ledger.book(cost_of(usage))
        if before:
            self.ledger.book(self.run.own.untold)

    def draw_seed(self, *parts: object) -> int:
        """A 63-bit seed that depends on the seed, the scope and `parts` alone."""
        text = "\x1f".join(map(str, (self.seed, self.scope, *parts)))
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def random(self, *parts: object) -> random.Random:
        return random.Random(self.draw_seed(*parts))

    def note(self, what: str, count: int = 1) -> None:
        """Count something that the result has to say."""
        self.notes[clean(masked(what))] += count

    def bill(self, role: str, usage: Usage, about: Any = None, model: str | None = None) -> None:
        """Add to the bill of a role, of the model that it asked, and of the state key that it asked about."""
        self.run.tally.bill(usage)
        self.usage.setdefault(role, Usage()).add(usage)
        if model is not None:
            self.usage_by_model.setdefault((role, model), Usage()).add(usage)
        if about is not None:
            self.costs.setdefault(about, Usage()).add(usage)

    async def once(self, key: Any, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """`make()`, but once per key: later and concurrent askers get the same result. A failure is not remembered."""
        while True:
            found = self.memory.get(key)
            if isinstance(found, tuple):
                return found[0]
            if (work := found) is None:
                work = self.memory[key] = Work(self, make())
                work.task.add_done_callback(lambda task: self._remember(key, task))
            try:
                return await work.wait()
            except BudgetSpent:
                if work.owner is self:
                    raise
            # another trial's budget did not cover it: asked again, on this one's

    async def joined(self, key: Any, make: Callable[..., Coroutine[Any, Any, T]], *given: Any) -> T:
        """`make(*given)`, shared by all who ask for `key` while it is under way; nothing is remembered afterwards.

        Where the first asker is cancelled, the next one begins anew.
        """
        while key in self.memory:
            shared = self._awaited(key)
            try:
                return await asyncio.shield(shared)
            except asyncio.CancelledError:
                if not shared.cancelled() or (me := asyncio.current_task()) is None or me.cancelling():
                    raise
        self.memory[key] = None
        try:
            result = await make(*given)
        except BaseException as error:
            if (shared := self.memory.pop(key)) is not None:
                if isinstance(error, asyncio.CancelledError):
                    shared.cancel()
                else:
                    shared.set_exception(error)
                    shared.exception()  # seen, even where nobody else waits any more
            raise
        if (shared := self.memory.pop(key)) is not None:
            shared.set_result(result)
        return result

    async def settled(self, *keys: Any) -> None:
        """Wait until no `joined` work of these keys is under way, whatever becomes of it."""
        while busy := [key for key in keys if key in self.memory]:
            await asyncio.wait([self._awaited(busy[0])])

    def _awaited(self, key: Any) -> asyncio.Future[Any]:
        """The end of `joined` work; a future is made where somebody waits."""
        if self.memory[key] is None:
            self.memory[key] = asyncio.get_running_loop().create_future()
        return self.memory[key]

    def _remember(self, key: Any, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            self.memory.pop(key, None)
        else:
            self.memory[key] = (task.result(),)

    def spend_state(self) -> None:
        """Book one expanded state. Raises BudgetSpent where no more may be expanded."""
        run, own = self.run, self.ledger
        for ledger in (run.ledger, own):
            if ledger.limits and (name := ledger.lacking(_STATE)) is not None:
                raise ledger.refusal(name, _STATE)
        run.ledger.spent["states"] += 1
        own.spent["states"] += 1
        run.tally.states += 1

    @property
    def timed(self) -> bool:
        """Whether a budget bounds its seconds."""
        return self.deadline is not None or self.run.deadline is not None

    def check_deadline(self) -> None:
        """Raises BudgetSpent where the task's or the run's seconds are over: before what cannot be interrupted."""
        if not self.timed:
            return
        for deadline, owner in ((self.deadline, "task"), (self.run.deadline, "run")):
            if deadline is not None and time.monotonic() >= deadline:
                raise BudgetSpent(f"the {owner}'s budget of seconds is spent", owner=owner)

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
            raise BudgetSpent(f"the {owner}'s budget of seconds is spent", owner=owner) from None

    async def stop(self) -> None:
        """End what is still under way; what another trial waits for is finished first, on this one's bill."""
        self.over = True
        for work in list(self.begun):
            if not work.waiting:
                work.task.cancel()
        while self.begun:
            await asyncio.gather(*(work.task for work in self.begun), return_exceptions=True)
        self.closed = True


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
    results = await asyncio.gather(*map(begun, work), return_exceptions=True)
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
                flying.add(begun(work))
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
