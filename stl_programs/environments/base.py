"""What a search needs from a task family. As seen from the search, stepping never changes a state."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dspy

from signatures import Scale
from stl_programs.errors import RewardSealed, StlError, TaskError
from stl_programs.outside import shown
from stl_programs.records import Action, State, Task, Transition, ValueEstimate
from stl_programs.situations import Situation

_sealed: ContextVar[bool] = ContextVar("reward_sealed", default=False)


@contextmanager
def sealed_reward() -> Iterator[None]:
    """Within this block `Environment.score` raises: what a reward-free search runs in."""
    token = _sealed.set(True)
    try:
        yield
    finally:
        _sealed.reset(token)


@dataclass(frozen=True)
class Judge:
    """How states of one kind of page are judged, where that differs from the world's other states.

    Args:
        signature: of the judgement; outputs `rationale` and `score`.
        lookahead: the same by one step of lookahead, for STL; None: such states make no training rows.
        scale: of its scores; the environment's by default.
        offset: the score is added to the estimate of the state before, and bounded by the environment's scale.
    """

    signature: type[dspy.Signature]
    lookahead: type[dspy.Signature] | None = None
    scale: Scale | None = None
    offset: bool = False


def with_fields(task: Task, fields: dict[str, Any]) -> Task:
    """`task` with further inputs; part of what it is, and so of its id. Raises StlError for other than JSON."""
    if not fields:
        return task
    try:
        text = json.dumps(fields, sort_keys=True)
    except TypeError as error:
        raise StlError(f"the inputs {', '.join(fields)} of task {task.id!r} must be JSON: {error}") from None
    return Task(f"{task.id} {hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}", task.text,
                {**task.fields, **fields})


def derived_fields(situation: Situation) -> dict[str, Any]:
    """What every world's signatures may ask: task, state, trajectory, observations, last_action, siblings, notes, and
    the task's own fields. A value may be a function of no arguments."""
    state = situation.state
    return {
        **situation.task.fields, "task": situation.task.text, "state": state.text,
        "trajectory": lambda: state.trajectory, "observations": lambda: situation.observations,
        "last_action": situation.action or "none", "notes": situation.notes,
        "siblings": lambda: [_sibling(other.action, other.state, other.estimate) for other in situation.siblings]}


def _sibling(action: str, state: State, estimate: ValueEstimate | None) -> str:
    about = "" if estimate is None else f" ({estimate.rationale or estimate.score})"
    return f"{action} -> {state.text}{about}"


class Environment(ABC):
    """One task family: its states and transitions, the signatures that speak of them, and their scale.

    Required: `name`, `max_depth`, `scale`, the three signatures, `task`, `reset`, `step`, `answer` and `_score`;
    `tasks` for training and evaluation; `legal_actions` for `LegalMoves`. `check_environment` plays it, and says what
    is wrong.
    """

    name: str
    max_depth: int
    """Steps after which a trajectory ends at the latest."""
    scale: Scale
    """How scores in words become numbers."""
    policy_signature: type[dspy.Signature]
    value_signature: type[dspy.Signature]
    lookahead_signature: type[dspy.Signature]
    pure: bool = True
    """True where `step` is a function of state and action that costs nothing. Other steps are awaited (`astep`),
    bounded, timed, retried, billed and journaled."""
    task_free_values: bool = False
    """True where V depends on the state alone, so that rollouts may share judgements between tasks."""
    cyclic: bool = False
    """True where a path can come back to a state: searches then leave out successors that are already on the path."""
    judges: Mapping[str, Judge] = {}
    """By the page that `page` names: how its states are judged. Pass them on: `Value(..., judges=env.judges)`."""
    in_flight: int = 8
    """Requests at once to an environment that is not pure."""
    timeout: float = 60.0
    """Seconds that one such request may take."""
    retries: int = 2
    """How often one that failed transiently, or took too long, is sent again."""
    settings: tuple[str, ...] = ()
    """Names of attributes of one's own that change what happens: a journal is continued only where they are equal."""

    def identity(self) -> dict[str, Any]:
        """What journals know the world by: its name, and what changes answers."""
        names = ("max_depth", "cyclic", *self.settings)
        return {"name": self.name, "scale": str(self.scale), **{
            name: value if isinstance(value := getattr(self, name), (bool, int, float, str)) else str(value)
            for name in names}}

    @abstractmethod
    def task(self, text: str) -> Task:
        """The task that `text` describes. Raises TaskError for text that is none."""

    def as_task(self, entry: Any) -> Task:
        """A Task as it is, a text, or a dspy.Example whose further inputs become the task's fields."""
        if isinstance(entry, Task):
            return entry
        if isinstance(entry, str):
            return self.task(entry)
        if not (isinstance(entry, dspy.Example) and "task" in entry):
            raise TaskError(f"{shown(entry)} is no task: pass a Task, its text, or a dspy.Example with a `task`")
        given = dict(entry.inputs()) if getattr(entry, "_input_keys", None) else {"task": entry.task}
        return with_fields(self.task(given.pop("task")), given)

    def tasks(self, split: str) -> list[Task]:
        """The tasks of a split ("train", "validation", "test", or names of one's own). Raises TaskError for another."""
        raise StlError(f"{self.name} has no splits; pass a list of tasks")

    @abstractmethod
    def reset(self, task: Task) -> State:
        """Where `task` begins."""

    @abstractmethod
    def step(self, state: State, action: Action) -> Transition:
        """T(s, a). Raises TaskError for an action that is not possible in `state`."""

    def legal_actions(self, state: State) -> list[Action]:
        """Every action of a state, one per distinct next state. Leave it out where they cannot be listed."""
        raise StlError(f"the actions of {self.name} cannot be listed; propose them with a Policy")

    @property
    def listable(self) -> bool:
        """Whether `legal_actions` lists them."""
        return type(self).legal_actions is not Environment.legal_actions

    def choices(self, state: State) -> int | None:
        """How many distinct states can follow, so that a policy need not ask for more; None where that is unknown."""
        return None

    def successors(self, state: State) -> list[tuple[Action, Transition]]:
        """Every legal action with what it leads to; an irreversible one with its judged leaf (`leaf`)."""
        return [(action, self.leaf(state, action) if action.irreversible else self.step(state, action))
                for action in self.legal_actions(state)]

    def action(self, state: State, text: str) -> Action:
        """The action that a policy's `text` means; here it is marked where it cannot be undone."""
        return Action(text)

    def fields(self, situation: Situation) -> dict[str, Any]:
        """What signatures may ask of a situation, by name of the input; extend it with what your world knows.

        A value may be a function of no arguments: it is called only where a signature has that input. An input of type
        str takes a list one item a line. Already here: task, state, trajectory, observations, last_action,
        possible_actions (where they can be listed), siblings, notes, and the task's own `fields`.
        """
        found = derived_fields(situation)
        if self.listable:
            found["possible_actions"] = lambda: [action.text for action in self.legal_actions(situation.state)]
        return found

    def page(self, situation: Situation) -> str | None:
        """Which of `judges` judges this state; None for the value's own signature."""
        return None

    # What cannot be undone

    def leaf(self, state: State, action: Action) -> Transition:
        """What a search judges in place of taking an `action` that cannot be undone: a leaf that was not taken."""
        text = f"{state.text}\n(chosen, and not taken yet: {action.text})"
        return Transition(State(text, f"{state.key}\n{action.text}", (*state.history, action.text), True, state.data,
                                untaken=True), terminated=True)

    async def commit(self, task: Task, state: State, action: Action) -> Transition:
        """Take `action` in `state` for good, once, after the search."""
        return await self.astep(state, action)

    # Worlds behind a backend

    async def areset(self, task: Task) -> State:
        """`reset`, for environments that are not pure."""
        return self.reset(task)

    async def astep(self, state: State, action: Action) -> Transition:
        """`step`, for environments that are not pure. Raises TransientError for what may pass when sent again."""
        return self.step(state, action)

    async def ascore(self, task: Task, answer: str) -> float:
        """`score`, for environments whose reward is asked of a backend; one of your own calls `check_sealed` first."""
        return self.score(task, answer)

    async def aclose(self) -> None:  # noqa: B027
        """Give back sessions and connections; called when a run ends. The environment can be used again."""

    def record(self, transition: Transition) -> dict[str, Any]:
        """A transition as JSON, for the journal. Override with `restore` where the state's data is not JSON."""
        state = transition.state
        return {"text": state.text, "key": state.key, "terminal": state.terminal, "data": state.data,
                "terminated": transition.terminated, "truncated": transition.truncated,
                "observation": transition.observation}

    def restore(self, history: tuple[str, ...], row: dict[str, Any]) -> Transition:
        """The inverse of `record`; `history` are the actions that led to the state."""
        after = State(row["text"], row["key"], history, row["terminal"], row["data"])
        return Transition(after, row["terminated"], row["truncated"], row["observation"])

    # What came of it

    @abstractmethod
    def answer(self, task: Task, state: State) -> str:
        """What a finished (or abandoned) trajectory answers."""

    def oracle_value(self, state: State) -> float:
        """The exact value of a state on the scale, where the environment has a solver. For `Oracle` only."""
        raise StlError(f"{self.name} has no exact value; Oracle works only where there is a solver")

    @abstractmethod
    def _score(self, task: Task, answer: str) -> float: ...

    def score(self, task: Task, answer: str) -> float:
        """The true reward in [0, 1], for evaluation only. Raises RewardSealed during a reward-free search."""
        self.check_sealed(task)
        return self._score(task, answer)

    def check_sealed(self, task: Task) -> None:
        """Raises RewardSealed during a reward-free search."""
        if _sealed.get():
            raise RewardSealed(f"{self.name}: the reward of {task.id!r} was asked for during a reward-free search; "
                               "score answers after the search, or declare the program reward-guided")

    def solved(self, score: float) -> bool:
        """Whether a score counts as success; partial rewards do not."""
        return score >= 1.0
