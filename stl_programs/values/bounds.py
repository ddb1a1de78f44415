"""The floor and the ceiling of every table."""

from __future__ import annotations

from collections.abc import Sequence

from stl_programs.records import Information, ValueEstimate
from stl_programs.situations import Situation
from stl_programs.values.base import BaseValue, Judged


class Uniform(BaseValue):
    """Every state is worth the same; calls no model. The floor of every table."""

    async def aforward(self, situations: Sequence[Situation]) -> list[Judged]:
        return [_SAME] * len(situations)


_SAME = ValueEstimate(0.0)


class Oracle(BaseValue):
    """The environment's exact value. Reward-guided: the ceiling of every table, never part of training."""

    information: Information = "reward-guided"

    async def aforward(self, situations: Sequence[Situation]) -> list[Judged]:
        return [ValueEstimate(one.environment.oracle_value(one.state)) for one in situations]
