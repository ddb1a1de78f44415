"""Actions proposed by a language model (equation 1 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from stl_programs import engine
from stl_programs.construct import Count, checked
from stl_programs.engine import Budget
from stl_programs.errors import TaskError
from stl_programs.policies.base import BasePolicy
from stl_programs.predictor import Asks, Predictor
from stl_programs.records import Usage
from stl_programs.situations import Proposal, Situation, Source

Named = tuple[str, Source, float | None]
"""An action's text, where it was named, and its share of the log-probability of its completion."""


MOST_TRIED = 20
"""Of what one round of draws names, at most so many times the wanted actions are tried."""


class Policy(Asks, BasePolicy):
    """Legal actions proposed by a language model.

    One round of `samples` draws; while fewer than `count` distinct actions came back (or than there can be), up to
    `rounds` rounds in all, each told what it must not repeat (the paper's not-allowed list). Actions that the
    environment refuses are dropped; those that cannot be undone are judged leaves. A state met again is not asked about
    again, unless the search wants an independent draw.

    Args:
        signature: outputs `actions: list[str]`, or `action: str`.
        lm: a LiteLLM string, a dspy LM or a Model; None uses dspy.settings.lm.
        count: B, how many actions are wanted.
        samples: draws of one round.
        distinct: drop what leads to a state that is proposed already; False keeps every draw, as voting needs.
        logprobs: ask for log-probabilities: proposals carry them, and nodes a prior.
        temperature, max_tokens, format, budget: of its predictor.
    """

    settings = ("count", "rounds", "distinct")

    @checked
    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, count: Count = 5, samples: Count = 1,
                 rounds: Count = 3, distinct: bool = True, logprobs: bool = False, temperature: float | None = None,
                 max_tokens: int | None = None, format: str | None = None, budget: Budget | None = None):
        super().__init__()
        self.predict = Predictor(signature, lm, role="policy", samples=samples, temperature=temperature,
                                 max_tokens=max_tokens, format=format, logprobs=logprobs, budget=budget)
        self.predict.check_outputs("actions", "action")
        self.count, self.rounds, self.distinct = count, rounds, distinct

    async def aforward(self, situation: Situation, count: int | None = None, exclude: Sequence[str] = (),
                       draw: int = 0) -> list[Proposal]:
        environment, state = situation.environment, situation.state
        count = count or self.count
        most = environment.choices(state) if self.distinct else None
        enough = count if most is None else min(count, max(most - len(exclude), 0))
        proposals: dict[Any, Proposal] = {}
        tried = list(exclude)
        for round_ in range(self.rounds):
            named = await self._ask(situation, tried, count, round_, draw)
            named = _first_of_each(named, tried) if self.distinct else [one for one in named if one[0] not in exclude]
            if len(named) > (limit := MOST_TRIED * count):
                engine.context().note("policy draws' actions beyond those that were tried", len(named) - limit)
                named = named[:limit]
            while named and len(proposals) < enough:  # no more are taken than are wanted
                now, named = named[:enough - len(proposals)], named[enough - len(proposals):]
                steps = await engine.together(*(self._step(situation, text) for text, _, _ in now))
                for (text, source, logprob), step in zip(now, steps, strict=True):
                    tried.append(text)
                    if step is not None:
                        key = step[1].state.key if self.distinct else len(proposals)
                        proposals.setdefault(key, Proposal(*step, source, logprob))
            if len(proposals) >= enough:
                break
        return list(proposals.values())[:count]

    async def _ask(self, situation: Situation, tried: list[str], count: int, round_: int, draw: int) -> list[Named]:
        """The actions that one round of draws names; the same question is asked once per scope."""
        current, predict, key = engine.context(), self.predict, situation.state.key
        name = predict.model.name
        anew = (draw,) if draw else ()
        seeds = [current.draw_seed("policy", name, key, len(tried), round_, i, *anew) for i in range(predict.samples)]

        async def ask() -> list[Named]:
            inputs = predict.inputs(situation, not_allowed=list(tried), count=count)
            draws = await predict.draw(inputs, seeds, about=key)
            found: list[Named] = []
            for i, one in enumerate(draws):
                if one.fields is None:
                    continue
                actions = one.fields["actions"] if "actions" in one.fields else [one.fields["action"]]
                share = None if one.logprob is None else one.logprob / max(len(actions), 1)
                found += [(str(text), Source(name, round_, i, place), share) for place, text in enumerate(actions)]
            return found

        return await current.once(("policy", predict.identity(), key, tuple(tried), count, round_, draw,
                                   situation.notes, _seen(situation)), ask)

    async def _step(self, situation: Situation, text: str) -> tuple[Any, Any] | None:
        """The action that `text` means and what it leads to; None, counted, for one that is refused."""
        environment, state = situation.environment, situation.state
        try:
            action = environment.action(state, text)
            return action, await engine.take(environment, situation.task, state, action)
        except TaskError:
            engine.context().bill("policy (refused actions)", Usage(samples=1))
            return None


def _first_of_each(named: Sequence[Named], tried: Sequence[str]) -> list[Named]:
    first: dict[str, Named] = {}
    for one in named:
        if one[0] not in tried:
            first.setdefault(one[0], one)
    return list(first.values())


def _seen(situation: Situation) -> tuple[Any, ...]:
    """What is known of the siblings, where a search shows them."""
    return tuple((other.action, other.estimate and (other.estimate.score, other.estimate.rationale))
                 for other in situation.siblings)
