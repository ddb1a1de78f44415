"""What every value is, and how several draws become one estimate."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import Any, Literal

from stl_programs import engine
from stl_programs.errors import BudgetSpent, StlError
from stl_programs.outside import shown
from stl_programs.records import Information, Sample, ValueEstimate
from stl_programs.saving import Saved
from stl_programs.situations import Situation

Aggregate = Literal["median", "mean", "max"]
LARGEST = sys.float_info.max
Judged = ValueEstimate | BudgetSpent
"""An estimate, or that the budget did not cover it."""


class BaseValue(Saved):
    """What a search asks of a value: estimates of several situations at once.

    Subclasses write `estimate`, or `aforward` where they judge siblings together.

    Example:
        >>> class Depth(BaseValue):
        ...     async def estimate(self, situation):
        ...         return ValueEstimate(float(situation.depth), "further is better")
    """

    information: Information = "reward-free"

    async def estimate(self, situation: Situation) -> ValueEstimate:
        """The estimate of one situation."""
        [judged] = await self.aforward([situation])
        if isinstance(judged, BudgetSpent):
            raise judged
        return judged

    async def aforward(self, situations: Sequence[Situation]) -> list[Judged]:
        """An estimate per situation, asked for side by side."""
        return await engine.together(*(self._one(situation) for situation in situations))

    def forward(self, situations: Sequence[Situation]) -> list[Judged]:
        """`aforward` from ordinary code."""
        return engine.run_sync(self.aforward(situations))

    async def _one(self, situation: Situation) -> Judged:
        try:
            return await self.estimate(situation)
        except BudgetSpent as spent:
            return spent


def judges(value: BaseValue) -> bool:
    """Whether the class of `value` says how it judges."""
    kind = type(value)
    return kind.estimate is not BaseValue.estimate or kind.aforward is not BaseValue.aforward


def sound(value: BaseValue, estimate: Any) -> ValueEstimate:
    """What `value` gave for a state, with its score as a float.

    Raises StlError for what is no estimate: NaN would be compared with, and chosen by, in silence.
    """
    if type(estimate) is ValueEstimate and isinstance(estimate.rationale, str):
        score = estimate.score
        if score is None or (type(score) is float and isfinite(score)):
            return estimate
        if isinstance(score, Real) and -LARGEST <= score <= LARGEST:  # whole numbers, and numpy's
            return estimate._replace(score=float(score))
    raise StlError(f"{type(value).__name__} gives {shown(estimate)} for a state: return ValueEstimate(score, "
                   "rationale), the score a finite number, or None where there is none, and the rationale a text")


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
