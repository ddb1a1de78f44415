"""Actions proposed by a language model (equation 1 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from stl_programs import engine
from stl_programs.engine import Budget
from stl_programs.environments.base import Environment
from stl_programs.errors import TaskError
from stl_programs.models import load, string_of
from stl_programs.models.formats import known_format
from stl_programs.policies.base import Proposal
from stl_programs.predictor import draw, spoken_format
from stl_programs.records import Information, State, Task, Usage


class Policy(dspy.Module):
    """Distinct legal actions proposed by a language model.

    One round of `samples` draws; while fewer than `count` distinct actions came back (or than there can be), up to
    `rounds` rounds in all, each told what it must not repeat (the paper's not-allowed list). Actions that the
    environment refuses, and those that cannot be undone, are dropped. A state met again is not asked about again.

    Args:
        signature: outputs `actions: list[str]`.
        lm: a LiteLLM string or a dspy LM; None uses dspy.settings.lm.
        count: B, how many distinct actions are wanted.
        samples: draws of one round.
        format: how the model is asked ("chat", "compact", "lookahead"); None for the model's own.
        budget: of this module over a run.
    """

    information: Information = "reward-free"

    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, count: int = 5,
                 samples: int = 1, rounds: int = 3, temperature: float = 1.0, max_tokens: int = 512,
                 format: str | None = None, budget: Budget | None = None):
        super().__init__()
        if count < 1 or samples < 1 or rounds < 1:
            raise ValueError(f"count={count}, samples={samples}, rounds={rounds}: each must be at least 1")
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens}: a reply needs at least 1; budgets reserve this many")
        self.predict = dspy.Predict(signature)
        self.lm, self.count, self.samples, self.rounds = lm, count, samples, rounds
        self.temperature, self.max_tokens, self.budget = temperature, max_tokens, budget
        self.format = known_format(format)

    async def aforward(self, environment: Environment, task: Task, state: State, *, count: int | None = None,
                       exclude: Sequence[str] = ()) -> list[Proposal]:
        """Up to `count` (None: the module's own) proposals beside the actions in `exclude`."""
        count = count or self.count
        most = environment.choices(state)
        enough = count if most is None else min(count, max(most - len(exclude), 0))
        model = load(self.predict.lm or self.lm)
        proposals: dict[Any, Proposal] = {}
        tried = list(exclude)
        for round_ in range(self.rounds):
            texts = await self._ask(model, task, state, tried, count, round_)
            for text in dict.fromkeys(text for text in texts if text not in tried):
                tried.append(text)
                if (proposal := await _step(environment, state, text)) is not None:
                    proposals.setdefault(proposal[1].state.key, proposal)
            if len(proposals) >= enough:
                break
        return list(proposals.values())[:count]

    async def _ask(self, model: Any, task: Task, state: State, tried: list[str], count: int,
                   round_: int) -> list[str]:
        """The actions that one round of draws names; the same question is asked once per scope."""
        current = engine.context()
        fields = {"task": task.text, "trajectory": state.trajectory, "state": state.text, "not_allowed": list(tried),
                  "count": count}
        inputs = {name: fields[name] for name in self.predict.signature.input_fields}
        seeds = [current.draw_seed("policy", model.name, state.key, len(tried), round_, i)
                 for i in range(self.samples)]

        async def ask() -> list[str]:
            draws = await draw("policy", model, self.predict, inputs, seeds, temperature=self.temperature,
                               max_tokens=self.max_tokens, format_name=self.format, module=self,
                               budget=self.budget, about=state.key)
            return [text for d in draws if d.fields for text in d.fields["actions"]]

        return await current.once(("policy", id(self), state.key, tuple(tried), count, round_), ask)

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"kind": "Policy", "lm": string_of(self.predict.lm or self.lm), "count": self.count,
                "samples": self.samples, "rounds": self.rounds, "temperature": self.temperature,
                "max_tokens": self.max_tokens, "format": spoken_format(self),
                "budget": self.budget.to_dict() if self.budget else None,
                "demos": [dict(demo) for demo in self.predict.demos]}


async def _step(environment: Environment, state: State, text: str) -> Proposal | None:
    try:
        action = environment.action(state, text)
        if action.irreversible:
            engine.context().bill("policy (irreversible actions)", Usage(samples=1))
            return None
        return action, await engine.take(environment, state, action)
    except TaskError:
        engine.context().bill("policy (refused actions)", Usage(samples=1))
        return None
