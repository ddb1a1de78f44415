"""What every policy is: proposals for a situation."""

from __future__ import annotations

from collections.abc import Sequence

from stl_programs import engine
from stl_programs.records import Information
from stl_programs.saving import Saved
from stl_programs.situations import Proposal, Situation


class BasePolicy(Saved):
    """What a search asks of a policy. Subclasses write `aforward`.

    Example:
        >>> class FirstMove(BasePolicy):
        ...     async def aforward(self, situation, count=None, exclude=(), draw=0):
        ...         action = situation.environment.legal_actions(situation.state)[0]
        ...         step = await engine.take(situation.environment, situation.task, situation.state, action)
        ...         return [Proposal(action, step)]
    """

    information: Information = "reward-free"

    async def aforward(self, situation: Situation, count: int | None = None, exclude: Sequence[str] = (),
                       draw: int = 0) -> list[Proposal]:
        """Proposals for `situation`.

        Args:
            count: how many are wanted; None for as many as the policy gives.
            exclude: actions that are not wanted again.
            draw: which independent attempt this is. Equal attempts propose the same, others are drawn anew.
        """
        raise NotImplementedError(f"{type(self).__name__} has no aforward(situation, count, exclude, draw)")

    def forward(self, situation: Situation, count: int | None = None) -> list[Proposal]:
        """`aforward` from ordinary code."""
        return engine.run_sync(self.aforward(situation, count))
