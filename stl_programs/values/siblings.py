"""All siblings in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from stl_programs import engine
from stl_programs.construct import checked
from stl_programs.engine import Budget
from stl_programs.errors import BudgetSpent
from stl_programs.predictor import Asks, Predictor
from stl_programs.records import Sample
from stl_programs.situations import Situation
from stl_programs.values.base import Aggregate, BaseValue, Judged, aggregate


class AsksTogether(Asks, BaseValue):
    """Holds the predictor of a value that asks about several states at once."""

    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, samples: int = 1,
                 temperature: float | None = None, max_tokens: int | None = None, format: str | None = None,
                 budget: Budget | None = None):
        super().__init__()
        self.predict = Predictor(signature, lm, role="value", samples=samples, temperature=temperature,
                                 max_tokens=max_tokens, format=format, budget=budget)

    async def ask(self, about: Sequence[Situation], **known: Any) -> list[dict[str, Any] | None]:
        """The parsed fields of every draw; None for one that does not parse."""
        current, predict = engine.context(), self.predict
        keys = [situation.state.key for situation in about]
        seeds = [current.draw_seed(type(self).__name__, predict.model.name, *keys, i) for i in range(predict.samples)]
        draws = await predict.draw(predict.inputs(about[0], **known), seeds, about=keys[0])
        return [draw.fields for draw in draws]


class SiblingValue(AsksTogether):
    """All siblings in one call (`signatures.JudgeSiblings`): one score each, on the environment's scale.

    A draw that does not score every state is missing for all of them.
    """

    settings = ("aggregate",)

    @checked
    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, aggregate: Aggregate = "median",
                 **options: Any):
        super().__init__(signature, lm, **options)
        self.aggregate: Aggregate = aggregate
        self.predict.check_outputs("scores")

    async def aforward(self, situations: Sequence[Situation]) -> list[Judged]:
        if not situations:
            return []
        try:
            replies = await self.ask(situations, states=[situation.state.text for situation in situations])
        except BudgetSpent as spent:
            return [spent] * len(situations)
        scale = situations[0].environment.scale
        rows: list[list[Sample]] = [[] for _ in situations]
        for fields in replies:
            scores = list(fields["scores"]) if fields else []
            if len(scores) != len(situations):
                scores = [None] * len(situations)
            for row, score in zip(rows, scores, strict=True):
                value = None if score is None else scale.parse(str(score))
                row.append(Sample(value, str(fields["rationale"]) if fields else "",
                                  None if value is not None else "no score on the scale for every state"))
        return [aggregate(row, self.aggregate) for row in rows]
