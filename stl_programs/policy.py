"""Policies: what could be done next in a state (equation 1 of the paper)."""

from __future__ import annotations

from typing import Any

import dspy

from stl_programs import engine
from stl_programs.environments.base import Environment
from stl_programs.errors import TaskError
from stl_programs.models import load, string_of
from stl_programs.models.calls import draw
from stl_programs.records import Action, State, Task, Transition, Usage

Proposal = tuple[Action, Transition]
"""A legal action and what it leads to."""


class LegalMoves(dspy.Module):
    """Every legal action that is not irreversible; calls no model."""

    async def aforward(self, environment: Environment, task: Task, state: State) -> list[Proposal]:
        return environment.successors(state)

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"kind": "LegalMoves"}


class Policy(dspy.Module):
    """Distinct legal actions proposed by a language model.

    One round of `samples` draws; while fewer than `count` distinct actions came back, up to `rounds` rounds in all,
    each told what it must not repeat (the paper's not-allowed list). Actions that the environment refuses are dropped.

    Args:
        signature: outputs `actions: list[str]`.
        lm: a LiteLLM string or a dspy LM; None uses dspy.settings.lm.
        count: B, how many distinct actions are wanted.
        samples: draws of one round.
    """

    def __init__(self, signature: type[dspy.Signature], lm: str | dspy.BaseLM | None = None, *, count: int = 5,
                 samples: int = 1, rounds: int = 3, temperature: float = 1.0, max_tokens: int = 512):
        super().__init__()
        if count < 1 or samples < 1 or rounds < 1:
            raise ValueError(f"count={count}, samples={samples}, rounds={rounds}: each must be at least 1")
        self.predict = dspy.Predict(signature)
        self.lm, self.count, self.samples, self.rounds = lm, count, samples, rounds
        self.temperature, self.max_tokens = temperature, max_tokens

    async def aforward(self, environment: Environment, task: Task, state: State) -> list[Proposal]:
        found: dict[Any, Proposal] = {}
        tried: list[str] = []
        model = load(self.predict.lm or self.lm)
        for round_ in range(self.rounds):
            fields = {"task": task.text, "trajectory": state.trajectory, "state": state.text, "not_allowed": tried,
                      "count": self.count}
            inputs = {name: fields[name] for name in self.predict.signature.input_fields}
            seeds = [engine.context().draw_seed("policy", model.name, state.key, round_, i)
                     for i in range(self.samples)]
            draws = await draw("policy", model, self.predict, inputs, seeds, temperature=self.temperature,
                               max_tokens=self.max_tokens)
            for text in (text for d in draws if d.fields for text in d.fields["actions"]):
                if (proposal := _step(environment, state, text)) is not None:
                    found.setdefault(proposal[1].state.key, proposal)
                tried.append(text)
            if len(found) >= self.count:
                break
        return list(found.values())[:self.count]

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"kind": "Policy", "lm": string_of(self.predict.lm or self.lm), "count": self.count,
                "samples": self.samples, "rounds": self.rounds, "temperature": self.temperature,
                "max_tokens": self.max_tokens, "demos": [dict(demo) for demo in self.predict.demos]}


def _step(environment: Environment, state: State, text: str) -> Proposal | None:
    try:
        action = Action(text)
        return action, environment.step(state, action)
    except TaskError:
        engine.context().bill("policy (refused actions)", Usage(samples=1))
        return None
