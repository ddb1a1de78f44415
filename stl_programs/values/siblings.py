"""All siblings in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from signatures import signature_version
from stl_programs import engine
from stl_programs.engine import Budget
from stl_programs.environments.base import Environment
from stl_programs.errors import BudgetSpent
from stl_programs.models import load, string_of
from stl_programs.models.formats import known_format
from stl_programs.predictor import draw, spoken_format
from stl_programs.records import Sample, State, Task
from stl_programs.values.base import Aggregate, BaseValue, Judged, aggregate


class AsksTogether(BaseValue):
    """Holds the predictor of a value that asks about several states at once."""

    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, samples: int = 1,
                 temperature: float = 1.0, max_tokens: int = 512, format: str | None = None,
                 budget: Budget | None = None):
        super().__init__()
        if samples < 1 or max_tokens < 1:
            raise ValueError(f"samples={samples}, max_tokens={max_tokens}: each at least 1")
        self.predict = dspy.Predict(signature)
        self.lm, self.samples, self.temperature = lm, samples, temperature
        self.max_tokens, self.budget, self.format = max_tokens, budget, known_format(format)

    async def ask(self, task: Task, about: Sequence[State], inputs: dict[str, Any]) -> list[dict[str, Any] | None]:
        """The parsed fields of every draw; None for one that does not parse."""
        current, model = engine.context(), load(self.predict.lm or self.lm)
        seeds = [current.draw_seed(type(self).__name__, model.name, *(s.key for s in about), i)
                 for i in range(self.samples)]
        inputs = {name: inputs[name] for name in self.predict.signature.input_fields}
        draws = await draw("value", model, self.predict, inputs, seeds, temperature=self.temperature,
                           max_tokens=self.max_tokens, format_name=self.format, module=self, budget=self.budget,
                           about=about[0].key)
        return [d.fields for d in draws]

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"kind": type(self).__name__, "lm": string_of(self.predict.lm or self.lm), "samples": self.samples,
                "temperature": self.temperature, "max_tokens": self.max_tokens, "format": spoken_format(self),
                "signature": signature_version(self.predict.signature),
                "budget": self.budget.to_dict() if self.budget else None,
                "demos": [dict(demo) for demo in self.predict.demos]}


class SiblingValue(AsksTogether):
    """All siblings in one call (`signatures.JudgeSiblings`): one score each, on the environment's scale.

    A draw that does not score every state is missing for all of them.
    """

    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, aggregate: Aggregate = "median",
                 **options: Any):
        super().__init__(signature, lm, **options)
        self.aggregate: Aggregate = aggregate

    async def judge(self, environment: Environment, task: Task, states: Sequence[State]) -> list[Judged]:
        if not states:
            return []
        try:
            replies = await self.ask(task, states, {"task": task.text, "trajectory": states[0].trajectory,
                                                    "states": [state.text for state in states]})
        except BudgetSpent as spent:
            return [spent] * len(states)
        rows: list[list[Sample]] = [[] for _ in states]
        for fields in replies:
            scores = list(fields["scores"]) if fields else []
            if len(scores) != len(states):
                scores = [None] * len(states)
            for row, score in zip(rows, scores, strict=True):
                value = None if score is None else environment.scale.parse(str(score))
                row.append(Sample(value, str(fields["rationale"]) if fields else "",
                                  None if value is not None else "no score on the scale for every state"))
        return [aggregate(row, self.aggregate) for row in rows]

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {**super().dump_state(), "aggregate": self.aggregate}
