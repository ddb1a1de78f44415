"""Every legal action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from stl_programs import engine
from stl_programs.environments.base import Environment
from stl_programs.policies.base import Proposal
from stl_programs.records import Information, State, Task


class LegalMoves(dspy.Module):
    """Every legal action that is not irreversible; calls no model."""

    information: Information = "reward-free"

    async def aforward(self, environment: Environment, task: Task, state: State, *, count: int | None = None,
                       exclude: Sequence[str] = ()) -> list[Proposal]:
        """The first `count` (None: all) legal actions that are not in `exclude`."""
        if environment.pure and count is None and not exclude:
            return environment.successors(state)
        actions = [action for action in environment.legal_actions(state)
                   if not action.irreversible and action.text not in exclude][:count]
        steps = await engine.together(*(engine.take(environment, state, action) for action in actions))
        return list(zip(actions, steps, strict=True))

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"kind": "LegalMoves"}
