"""What every value is, and how several draws become one estimate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import dspy

from stl_programs import engine
from stl_programs.environments.base import Environment
from stl_programs.errors import BudgetSpent
from stl_programs.records import Information, Sample, State, Task, ValueEstimate

Aggregate = Literal["median", "mean", "max"]
Judged = ValueEstimate | BudgetSpent
"""An estimate, or that the budget did not cover it."""


class BaseValue(dspy.Module):
    """What a search asks of a value: estimates of all siblings at once. Subclasses write `aforward` or `judge`."""

    information: Information = "reward-free"

    async def aforward(self, environment: Environment, task: Task, state: State) -> ValueEstimate:
        """The estimate of one state."""
        [judged] = await self.judge(environment, task, [state])
        if isinstance(judged, BudgetSpent):
            raise judged
        return judged

    async def judge(self, environment: Environment, task: Task, states: Sequence[State]) -> list[Judged]:
        """An estimate per state, asked for side by side."""
        return await engine.together(*(self._one(environment, task, state) for state in states))

    async def _one(self, environment: Environment, task: Task, state: State) -> Judged:
        try:
            return await self.aforward(environment, task, state)
        except BudgetSpent as spent:
            return spent


def aggregate(samples: Sequence[Sample], how: Aggregate) -> ValueEstimate:
    """One estimate from several draws, over those that parsed.

    The median is the upper one. The rationale is that of the median draw, or of the best one for "max".
    """
    parsed = sorted((s for s in samples if s.score is not None), key=lambda s: s.score or 0.0)
    if not parsed:
        return ValueEstimate(None, samples=tuple(samples))
    scores = [s.score or 0.0 for s in parsed]
    if how == "max":
        return ValueEstimate(scores[-1], parsed[-1].rationale, tuple(samples))
    middle = parsed[len(parsed) // 2]
    score = middle.score if how == "median" else statistics.fmean(scores)
    return ValueEstimate(score, middle.rationale, tuple(samples))
