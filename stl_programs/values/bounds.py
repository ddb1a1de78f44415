"""The floor and the ceiling of every table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stl_programs.environments.base import Environment
from stl_programs.records import Information, State, Task, ValueEstimate
from stl_programs.values.base import BaseValue, Judged


class Uniform(BaseValue):
    """Every state is worth the same; calls no model. The floor of every table."""

    async def judge(self, environment: Environment, task: Task, states: Sequence[State]) -> list[Judged]:
        return [_SAME] * len(states)

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"kind": "Uniform"}


_SAME = ValueEstimate(0.0)


class Oracle(BaseValue):
    """The environment's exact value. Reward-guided: the ceiling of every table, never part of training."""

    information: Information = "reward-guided"

    async def judge(self, environment: Environment, task: Task, states: Sequence[State]) -> list[Judged]:
        return [ValueEstimate(environment.oracle_value(state)) for state in states]

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"kind": "Oracle"}
