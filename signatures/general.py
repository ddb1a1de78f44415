"""The three calls of a search, as typed dspy.Signatures: propose actions, judge a state, judge it by lookahead."""

from __future__ import annotations

import dspy


class ProposeActions(dspy.Signature):
    """Propose distinct next actions for the task, most promising first.

    Every action must be possible in the current state. Never repeat an action of the not-allowed list.
    """

    task: str = dspy.InputField()
    trajectory: str = dspy.InputField(desc="the steps so far")
    state: str = dspy.InputField(desc="what is observed now")
    not_allowed: list[str] = dspy.InputField(desc="actions that were already proposed")
    count: int = dspy.InputField(desc="how many actions are wanted")
    actions: list[str] = dspy.OutputField()


class EstimateValue(dspy.Signature):
    """Judge how likely it is that the task can still be completed from the current state.

    Reason first, then give the score.
    """

    task: str = dspy.InputField()
    trajectory: str = dspy.InputField(desc="the steps so far")
    state: str = dspy.InputField(desc="what is observed now")
    rationale: str = dspy.OutputField()
    score: str = dspy.OutputField(desc="a number from 1 (hopeless) to 10 (done)")


class Lookahead(dspy.Signature):
    """Judge the current state by simulating one step of lookahead.

    Name the best next action, the state it leads to, and why that state is worth what it is worth.
    Where the task has ended, action and next state are "none".
    """

    task: str = dspy.InputField()
    trajectory: str = dspy.InputField(desc="the steps so far")
    state: str = dspy.InputField(desc="what is observed now")
    best_action: str = dspy.OutputField()
    next_state: str = dspy.OutputField(desc="what will be observed after the best action")
    rationale: str = dspy.OutputField(desc="why the next state is worth its score")
    score: str = dspy.OutputField(desc="a number from 1 (hopeless) to 10 (done)")


class JudgeSiblings(dspy.Signature):
    """Judge how likely it is that the task can still be completed from each of these states.

    Compare them first; then give one score per state, in their order.
    """

    task: str = dspy.InputField()
    trajectory: str = dspy.InputField(desc="the steps that led to the first of them")
    states: list[str] = dspy.InputField(desc="the states to judge")
    rationale: str = dspy.OutputField()
    scores: list[str] = dspy.OutputField(desc="one score per state, on the task's scale")


class CompareStates(dspy.Signature):
    """Decide from which of two states the task is more likely to be completed."""

    task: str = dspy.InputField()
    first: str = dspy.InputField()
    second: str = dspy.InputField()
    rationale: str = dspy.OutputField()
    better: str = dspy.OutputField(desc="one word: first or second")


NO_ACTION = "none"
"""What Lookahead answers for `best_action` and `next_state` in a terminal state."""
