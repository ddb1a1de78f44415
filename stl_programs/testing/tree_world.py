"""A fake task family: synthetic trees whose optimum is known, and fakes of a policy and a value for them.

For tests and benchmarks of searches. Nothing here calls a model.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import erf, sqrt
from statistics import NormalDist
from typing import Any

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions
from stl_programs import engine
from stl_programs.construct import Count, Share, checked
from stl_programs.environments.base import Environment
from stl_programs.errors import BudgetSpent, TaskError
from stl_programs.policies import LegalMoves
from stl_programs.records import Action, State, Task, Transition, ValueEstimate
from stl_programs.situations import Proposal, Situation
from stl_programs.values import BaseValue

Path = tuple[int, ...]
"""The moves on a state's own way from the root. A state that is reached otherwise keeps the path of its own."""

_NORMAL = NormalDist()


class TreeWorld(Environment):
    """Trees of `depth` moves with `branching` successors a state; a task is the number of a world.

    Every state has a latent worth: its parent's plus a normal step. A leaf's worth in [0, 1] is the normal
    distribution function of the latent over `depth`, so that worth runs in families. Below the first level a share of
    the successors are transpositions: they lead to a successor of a sibling of the state, as moves that commute do,
    and so to a state that is reached from two parents at least. States are made when they are asked for, each by a
    hash of its world and path.

    Args:
        depth: moves from the root to a leaf. branching: successors of a state.
        transpositions: the share, in [0, 1 - 1 / branching].
        seed: of all worlds.

    Example:
        >>> env = TreeWorld(depth=6, branching=5, transpositions=0.2)
        >>> env.optimum(env.task("0"))
    """

    name = "tree world"
    settings = ("branching", "transpositions", "seed")
    scale = NumberScale(0.0, 1.0)
    policy_signature = ProposeActions
    value_signature = EstimateValue
    lookahead_signature = Lookahead

    @checked
    def __init__(self, depth: Count = 6, branching: Count = 5, transpositions: Share = 0.2, seed: int = 0):
        if not 0 <= transpositions <= 1 - 1 / branching:
            raise ValueError(f"transpositions={transpositions}: from 0 to {1 - 1 / branching:g}, as at least one of "
                             f"{branching} successors is a state's own")
        self.max_depth, self.branching, self.transpositions, self.seed = depth, branching, transpositions, seed
        self.world = lru_cache(maxsize=512)(self._world)

    def __getstate__(self) -> dict[str, Any]:
        """Without the worlds that were made: another process makes its own."""
        return {name: value for name, value in vars(self).items() if name != "world"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.world = lru_cache(maxsize=512)(self._world)

    def _world(self, name: str) -> World:
        return World(name, self.max_depth, self.branching, self.transpositions, self.seed)

    def task(self, text: str) -> Task:
        text = str(text).strip()
        if not text.isdecimal():
            raise TaskError(f"{text!r} is no world; a task is the number of one, like '17'")
        return Task(text, text)

    def tasks(self, split: str) -> list[Task]:
        """A hundred worlds: "train" from 0, "validation" from 1000, "test" from 2000."""
        starts = {"train": 0, "validation": 1000, "test": 2000}
        if split not in starts:
            raise TaskError(f"no split {split!r}; there are {', '.join(starts)}")
        return [self.task(str(number)) for number in range(starts[split], starts[split] + 100)]

    def reset(self, task: Task) -> State:
        return self._state(task.text, (), ())

    def legal_actions(self, state: State) -> list[Action]:
        """Moves to distinct states."""
        return [action for action, _ in self.successors(state)]

    def successors(self, state: State) -> list[tuple[Action, Transition]]:
        world, path = state.data
        if state.terminal:
            return []
        first: dict[Path, int] = {}
        for move, child in enumerate(self.world(world).successors(path)):
            first.setdefault(child, move)
        return [(Action(str(move)), self._transition(state, child, move)) for child, move in first.items()]

    def step(self, state: State, action: Action) -> Transition:
        world, path = state.data
        if state.terminal or not action.text.isdecimal() or int(action.text) >= self.branching:
            raise TaskError(f"{action.text!r} is not possible in {state.text!r}; a move is a number below "
                            f"{self.branching}, and a leaf has none")
        return self._transition(state, self.world(world).successors(path)[int(action.text)], int(action.text))

    def _transition(self, state: State, path: Path, move: int) -> Transition:
        after = self._state(state.data[0], path, (*state.history, str(move)))
        return Transition(after, terminated=after.terminal, observation=after.text)

    def _state(self, world: str, path: Path, history: tuple[str, ...]) -> State:
        text = f"world {world}: {'.'.join(map(str, path)) or 'root'}"
        return State(text, text, history, len(path) == self.max_depth, (world, path))

    def answer(self, task: Task, state: State) -> str:
        """The moves, completed by the first successor each time where the state is no leaf."""
        moves = [int(move) for move in state.history]
        return ".".join(map(str, moves + [0] * (self.max_depth - len(moves))))

    def worth(self, task: Task, answer: str) -> float:
        """The worth of the leaf that an answer's moves lead to, in [0, 1]."""
        world = self.world(task.text)
        path: Path = ()
        moves = answer.split(".")
        if len(moves) != self.max_depth or not all(m.isdecimal() and int(m) < self.branching for m in moves):
            raise TaskError(f"{answer!r} is not {self.max_depth} moves below {self.branching}")
        for move in moves:
            path = world.successors(path)[int(move)]
        return world.true_value(path)

    def optimum(self, task: Task) -> float:
        """The worth of the best leaf."""
        return self.world(task.text).true_value(())

    def regret(self, task: Task, answer: str) -> float:
        """How much less an answer is worth than the best leaf."""
        return self.optimum(task) - self.worth(task, answer)

    def oracle_value(self, state: State) -> float:
        """The worth of the best leaf below a state."""
        world, path = state.data
        return self.world(world).true_value(path)

    def _score(self, task: Task, answer: str) -> float:
        try:
            return self.worth(task, answer) / self.optimum(task)
        except TaskError:
            return 0.0


class World:
    """One tree of a TreeWorld. Everything is remembered by the state's own path."""

    def __init__(self, name: str, depth: int, branching: int, transpositions: float, seed: int):
        self.depth, self.branching = depth, branching
        # one successor of a state is always its own: the others are redirected the more often
        self.redirected = transpositions * branching / (branching - 1) if branching > 1 else 0.0
        self.salt = f"{seed}/{name}/"
        self._successors: dict[Path, tuple[Path, ...]] = {}
        self._values: dict[Path, float] = {}

    def successors(self, path: Path) -> tuple[Path, ...]:
        """Where the moves 0, 1, ... of a state lead to, each named by its own path."""
        found = self._successors.get(path)
        if found is None:
            found = self._successors[path] = tuple(self._successor(path, move) for move in range(self.branching))
        return found

    def _successor(self, path: Path, move: int) -> Path:
        if path and self.redirected and self._is_transposition(path, move):
            _, sibling, which = self._hashed("to", (*path, move), 3)
            siblings = [child for child in self.successors(path[:-1]) if child != path]
            if siblings:
                parent = siblings[int(sibling * len(siblings))]
                own = [m for m in range(self.branching) if not self._is_transposition(parent, m)]
                return (*parent, own[int(which * len(own))])
        return (*path, move)

    def _is_transposition(self, path: Path, move: int) -> bool:
        [kept] = self._hashed("own", path, 1)
        [draw] = self._hashed("redirect", (*path, move), 1)
        return move != int(kept * self.branching) and draw < self.redirected

    def true_value(self, path: Path) -> float:
        """The worth of the best leaf below a state, by exhaustion."""
        if path not in self._values:
            if len(path) == self.depth:
                self._values[path] = 0.5 + 0.5 * erf(self._latent(path) / self.depth / sqrt(2))
            else:
                self._values[path] = max(self.true_value(child) for child in self.successors(path))
        return self._values[path]

    def _latent(self, path: Path) -> float:
        return sum(_NORMAL.inv_cdf(self._hashed("step", path[:i], 1)[0]) for i in range(1, len(path) + 1))

    def _hashed(self, what: str, path: Path, count: int) -> tuple[float, ...]:
        """`count` numbers, uniform between 0 and 1, that depend on the world, `what` and `path` alone."""
        return uniform(f"{self.salt}{what}/{path}", count)


def uniform(text: str, count: int) -> tuple[float, ...]:
    """`count` hashed numbers strictly between 0 and 1."""
    digest = hashlib.blake2b(text.encode(), digest_size=4 * count).digest()
    return tuple((number + 0.5) / 2 ** 32 for number in struct.unpack(f"{count}I", digest))


class Calls:
    """A limit on calls of a fake policy and a fake value in each task, and how many were made.

    What counts: a question for the successors of a state is one call and names them all; a judgement of one state is
    one call. The fakes below ask neither twice about one state of a task, as `Policy` and `Value` do not. A search of
    another library that has no such memory pays again when it meets a state again; give it the same `Calls`, and let
    it keep, per node of its own tree, the successors that were named.
    """

    def __init__(self, limit: int | None = None):
        self.limit = limit
        self.made = Counter[str]()

    def spend(self, task: Task) -> None:
        """Count one call. Raises BudgetSpent where the task has none left."""
        if self.limit is not None and self.made[task.id] >= self.limit:
            raise BudgetSpent(f"world {task.text}: its {self.limit} calls are spent")
        self.made[task.id] += 1


class WorldPolicy(LegalMoves):
    """A fake policy: names the successors of a state, all in one call.

    Args:
        calls: what questions are counted by.
        count: B, how many successors it names where the search does not say; None for all.
    """

    settings = ("count",)

    def __init__(self, calls: Calls, count: int | None = None):
        super().__init__()
        self.calls, self.count = calls, count

    async def aforward(self, situation: Situation, count: int | None = None, exclude: Sequence[str] = (),
                       draw: int = 0) -> list[Proposal]:
        """Up to `count` successors (None: the policy's own) whose action is not in `exclude`; raises BudgetSpent."""

        async def ask() -> None:
            self.calls.spend(situation.task)

        await engine.context().once(("world policy", situation.state.key), ask)
        return await super().aforward(situation, self.count if count is None else count, exclude, draw)


class WorldValue(BaseValue):
    """A fake value: the true value with normal noise, which fades as a state nears its leaves; clipped to [0, 1].

    It stands for a model, and like one it is no reward to the search. The noise depends on the state and `seed` alone:
    asking again brings nothing new.

    Args:
        noise: standard deviation at the root; at depth d it is noise * (1 - d / (max_depth + 1)).
        calls: what judgements are counted by.
        latency: awaited before a judgement: `latency(state)` seconds.
    """

    settings = ("noise", "seed")

    def __init__(self, noise: float = 0.2, *, seed: int = 0, calls: Calls | None = None,
                 latency: Callable[[State], float] | None = None):
        super().__init__()
        self.noise, self.seed, self.calls, self.latency = noise, seed, calls, latency

    def guess(self, environment: Environment, state: State) -> float:
        """The judgement of `state`, uncounted."""
        _, path = state.data
        spread = self.noise * (1 - len(path) / (environment.max_depth + 1))
        [draw] = uniform(f"noise/{self.seed}/{state.key}", 1)
        return min(max(environment.oracle_value(state) + spread * _NORMAL.inv_cdf(draw), 0.0), 1.0)

    async def estimate(self, situation: Situation) -> ValueEstimate:
        """The judgement of one state; raises BudgetSpent where no call is left."""
        return await engine.context().once(("world value", id(self), situation.state.key),
                                           lambda: self._judge(situation))

    async def _judge(self, situation: Situation) -> ValueEstimate:
        state = situation.state
        if self.calls:
            self.calls.spend(situation.task)
        if self.latency:
            await asyncio.sleep(self.latency(state))
        return ValueEstimate(self.guess(situation.environment, state), f"about {state.text}")
