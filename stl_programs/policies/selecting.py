"""Choosing among what a page offers, and filling up where too little came (paper, appendices D.2 and E)."""

from __future__ import annotations

from collections.abc import Sequence

from stl_programs import engine
from stl_programs.errors import StlError, TaskError
from stl_programs.policies.sampled import Policy
from stl_programs.situations import Proposal, Situation


class SelectingPolicy(Policy):
    """Actions of a page, chosen by a language model; a page that offers no more than are wanted is not asked about.

    The model sees the possible actions, and those that it must not name again. For worlds that list the actions of a
    page; where they cannot be listed (`choices` is None) it proposes as `Policy` does.

    Example:
        >>> policy = SelectingPolicy(env.policy_signature, "openai/gpt-4o", count=5)
    """

    async def aforward(self, situation: Situation, count: int | None = None, exclude: Sequence[str] = (),
                       draw: int = 0) -> list[Proposal]:
        environment, state = situation.environment, situation.state
        wanted, offered = count or self.count, environment.choices(state)
        if offered is None or offered - len(exclude) > wanted or not self.distinct:
            return await super().aforward(situation, count, exclude, draw)
        actions = [action for action in environment.legal_actions(state) if action.text not in exclude]
        steps = [engine.take(environment, situation.task, state, action) for action in actions]
        return [Proposal(action, step) for action, step in zip(actions, await engine.together(*steps), strict=True)]


class FillingPolicy(Policy):
    """Actions that a language model names; where fewer than are wanted, those that the world itself suggests fill up.

    For worlds with `suggestions(state)`, as HotpotQA has: the titles like one that was not found. Raises StlError for a
    world without.
    """

    async def aforward(self, situation: Situation, count: int | None = None, exclude: Sequence[str] = (),
                       draw: int = 0) -> list[Proposal]:
        environment, state, wanted = situation.environment, situation.state, count or self.count
        if not hasattr(environment, "suggestions"):
            raise StlError(f"{environment.name} suggests no actions; use Policy in place of FillingPolicy")
        found = await super().aforward(situation, count, exclude, draw)
        known = {one.transition.state.key for one in found}
        said = {one.action.text for one in found} | set(exclude)
        for text in environment.suggestions(state):
            if len(found) >= wanted:
                break
            if text in said:
                continue
            try:
                action = environment.action(state, text)
                step = await engine.take(environment, situation.task, state, action)
            except TaskError:
                continue
            if step.state.key not in known:
                known.add(step.state.key)
                found.append(Proposal(action, step))
                engine.context().note("actions filled up from the world's suggestions")
        return found
