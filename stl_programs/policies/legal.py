"""Every legal action."""

from __future__ import annotations

from collections.abc import Sequence

from stl_programs import engine
from stl_programs.policies.base import BasePolicy
from stl_programs.situations import Proposal, Situation


class LegalMoves(BasePolicy):
    """Every legal action, those that cannot be undone as judged leaves; calls no model.

    Asked for a number of them, the first ones; another `draw` shuffles them.
    """

    async def aforward(self, situation: Situation, count: int | None = None, exclude: Sequence[str] = (),
                       draw: int = 0) -> list[Proposal]:
        environment, state = situation.environment, situation.state
        if environment.pure and count is None and not exclude and not engine.context().timed:
            steps = environment.successors(state)
            if steps:
                engine.checked(environment, steps[0][1])
            return [Proposal(action, step) for action, step in steps]
        actions = [action for action in environment.legal_actions(state) if action.text not in exclude]
        if draw:
            engine.context().random("legal moves", state.key, draw).shuffle(actions)
        taken = await engine.together(*(
            engine.take(environment, situation.task, state, action) for action in actions[:count]))
        return [Proposal(action, step) for action, step in zip(actions, taken, strict=False)]
