"""What a policy and a value look at, and what a policy answers."""

from __future__ import annotations

from typing import Any, NamedTuple, get_origin

from stl_programs.records import Action, State, Task, Transition, ValueEstimate


class Source(NamedTuple):
    """Where a proposal came from: the round of asking, the draw in it, and the place among that draw's actions."""

    model: str
    round: int
    draw: int
    place: int


class Proposal(NamedTuple):
    """An action, and what it leads to.

    `logprob` is the natural log-probability of the action's own completion, shared out evenly where one completion
    named several actions; None where the model gives none.
    """

    action: Action
    transition: Transition
    source: Source | None = None
    logprob: float | None = None


class Sibling(NamedTuple):
    """Another successor of the same state, with its estimate where it has one."""

    action: str
    state: State
    estimate: ValueEstimate | None


class Situation(NamedTuple):
    """Where a search stands: a state, the way to it, and what else is known.

    `Environment.fields(situation)` makes of it the inputs of whichever signature asks.

    Example:
        >>> root = Situation(env, task, env.reset(task))
        >>> proposals = await policy.aforward(root)
        >>> [estimate] = await value.aforward([root.then(*proposals[0][:2])])
    """

    environment: Any
    task: Task
    state: State
    action: str | None = None
    """What led here from `before`; None at the root."""
    before: Situation | None = None
    """The situation one step earlier."""
    siblings: tuple[Sibling, ...] = ()
    notes: tuple[str, ...] = ()
    """What a search says to its modules in words: reflections, critiques, guidelines. Oldest first."""
    estimate: ValueEstimate | None = None
    """Of the state, where it was judged."""

    def then(self, action: Action, transition: Transition) -> Situation:
        """The situation after a step."""
        return Situation(self.environment, self.task, transition.state, action.text, self, (), self.notes)

    @property
    def path(self) -> list[Situation]:
        """From the root to here, both included."""
        path, here = [self], self.before
        while here is not None:
            path.append(here)
            here = here.before
        return path[::-1]

    @property
    def depth(self) -> int:
        """Steps from the root."""
        return len(self.state.history)

    @property
    def observations(self) -> list[str]:
        """What was observed in the states before this one, oldest first."""
        return [situation.state.text for situation in self.path[:-1]]


def as_input(value: Any, annotation: Any) -> Any:
    """`value` as an input of that type: a list for a str is one item a line."""
    if annotation is str and isinstance(value, (list, tuple)):
        return "\n".join(map(str, value)) or "none"
    if get_origin(annotation) is list and isinstance(value, tuple):
        return list(value)
    return value
