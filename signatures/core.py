"""The three calls of a search, as typed dspy.Signatures: propose actions, judge a state, judge it by lookahead."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from functools import cache
from typing import Literal

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


Variant = Literal["lv", "lv+tr", "lv+tr+r"]
"""What a tuned value says before its score (the paper's ablation): nothing; action and next state; also a rationale."""

_VARIANT_FIELDS: dict[Variant, set[str]] = {
    "lv": {"score"}, "lv+tr": {"best_action", "next_state", "score"},
    "lv+tr+r": {"best_action", "next_state", "rationale", "score"}}


def lookahead_variant(signature: type[dspy.Signature], variant: Variant) -> type[dspy.Signature]:
    """A Lookahead signature with only the output fields of `variant`."""
    if variant not in _VARIANT_FIELDS:
        raise ValueError(f"variant={variant!r}: choose one of {', '.join(_VARIANT_FIELDS)}")
    for name in [name for name in signature.output_fields if name not in _VARIANT_FIELDS[variant]]:
        signature = signature.delete(name)
    return signature


def lookahead_variant_of(signature: type[dspy.Signature]) -> Variant | None:
    """Which variant a value signature is; None for a base one (rationale and score)."""
    outputs = set(signature.output_fields)
    return next((variant for variant, fields in _VARIANT_FIELDS.items() if fields == outputs), None)


def signature_version(signature: type[dspy.Signature]) -> str:
    """Twelve hex digits over instructions, field names, types and descriptions: new words, new version."""
    return _version(signature)  # type: ignore[arg-type]


@cache
def _version(signature: Hashable) -> str:
    fields = [(name, str(field.annotation), (field.json_schema_extra or {}).get("desc"))
              for name, field in signature.fields.items()]  # type: ignore[attr-defined]
    text = json.dumps([signature.instructions, fields])  # type: ignore[attr-defined]
    return hashlib.sha256(text.encode()).hexdigest()[:12]
