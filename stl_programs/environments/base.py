"""What a search needs from a task family. As seen from the search, stepping never changes a state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dspy

from signatures import Scale
from stl_programs.errors import RewardSealed, StlError
from stl_programs.records import Action, State, Task, Transition

_sealed: ContextVar[bool] = ContextVar("reward_sealed", default=False)


@contextmanager
def sealed_reward() -> Iterator[None]:
    """Within this block `Environment.score` raises: what a reward-free search runs in."""
    token = _sealed.set(True)
    try:
        yield
    finally:
        _sealed.reset(token)


class Environment(ABC):
    """One task family: its states and transitions, the signatures that speak of them, and their scale."""

    name: str
    max_depth: int
    """Steps after which a trajectory ends at the latest."""
    scale: Scale
    policy_signature: type[dspy.Signature]
    value_signature: type[dspy.Signature]
    lookahead_signature: type[dspy.Signature]
    pure: bool = True
    """True where `step` is a function of state and action that costs nothing; other steps are journaled."""
    task_free_values: bool = False
    """True where V depends on the state alone, so that rollouts may share judgements between tasks."""

    @abstractmethod
    def task(self, text: str) -> Task:
        """The task that `text` describes. Raises TaskError for text that is none."""

    @abstractmethod
    def tasks(self, split: str) -> list[Task]: ...

    @abstractmethod
    def reset(self, task: Task) -> State: ...

    @abstractmethod
    def legal_actions(self, state: State) -> list[Action]:
        """Every action of a state where they can be listed, one per distinct next state."""

    def choices(self, state: State) -> int | None:
        """How many distinct states can follow, so that a policy need not ask for more; None where that is unknown."""
        return None

    def successors(self, state: State) -> list[tuple[Action, Transition]]:
        """Every legal action that is not irreversible, with what it leads to."""
        return [(action, self.step(state, action)) for action in self.legal_actions(state) if not action.irreversible]

    @abstractmethod
    def step(self, state: State, action: Action) -> Transition:
        """T(s, a). Raises TaskError for an action that is not possible in `state`."""

    def action(self, state: State, text: str) -> Action:
        """The action that a policy's `text` means; here it is marked where it cannot be undone."""
        return Action(text)

    async def astep(self, state: State, action: Action) -> Transition:
        """`step`, for environments that are not pure and may have to wait."""
        return self.step(state, action)

    def record(self, transition: Transition) -> dict[str, Any]:
        """A transition as JSON, for the journal. Override with `restore` where the state's key or data is not JSON."""
        state = transition.state
        return {"text": state.text, "key": state.key, "terminal": state.terminal, "data": state.data,
                "terminated": transition.terminated, "truncated": transition.truncated,
                "observation": transition.observation}

    def restore(self, state: State, action: Action, row: dict[str, Any]) -> Transition:
        """The inverse of `record`, for the step `action` from `state`."""
        after = State(row["text"], row["key"], (*state.history, action.text), row["terminal"], row["data"])
        return Transition(after, row["terminated"], row["truncated"], row["observation"])

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
        if _sealed.get():
            raise RewardSealed(f"{self.name}: the reward of {task.id!r} was asked for during a reward-free search; "
                               "score answers after the search, or declare the program reward-guided")
        return self._score(task, answer)

    def solved(self, score: float) -> bool:
        """Whether an answer of this score solves its task; by default only full reward does. For success rates."""
        return score >= 1.0
