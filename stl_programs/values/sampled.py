"""A language model that judges states, one at a time (equation 2 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Literal

import dspy

from signatures import NO_ACTION, LabelScale, NumberScale, Scale
from stl_programs import engine
from stl_programs.construct import checked
from stl_programs.engine import Budget
from stl_programs.environments.base import Judge
from stl_programs.errors import StlError
from stl_programs.models import Model
from stl_programs.predictor import Asks, Draw, Predictor
from stl_programs.records import Sample, Usage, ValueEstimate
from stl_programs.situations import Situation
from stl_programs.values.base import Aggregate, BaseValue, aggregate


class Value(Asks, BaseValue):
    """V(s) by a language model: several draws, each parsed by itself, aggregated.

    Args:
        signature: outputs `rationale` and `score`; a tuned value's signature also `best_action` and `next_state`.
        lm: a LiteLLM string, a dspy LM or a Model; None uses dspy.settings.lm.
        scale: how score words become numbers; the environment's by default.
        samples: draws per state. aggregate: of the draws that parsed; a state without any is missing.
        judges: `environment.judges`, where a world's pages are judged each in its own way.
        rationale: of a tuned value: "nested" (the paper's equation 6: action -> next state . rationale) or "innermost"
            (the rationale alone). Nested by default, as in the paper: it is the chain of steps that the model was
            trained to say, and for a short chain it is what makes the judgement. Over iterations it grows by one step
            each; choose "innermost" where next states are long pages.
        temperature, max_tokens, format, budget: of its predictor.
    """

    settings = ("aggregate", "scale", "rationale", "scales", "offsets")

    @checked
    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, samples: int = 3,
                 aggregate: Aggregate = "median", scale: Scale | None = None, judges: Mapping[str, Judge] | None = None,
                 rationale: Literal["nested", "innermost"] = "nested", temperature: float | None = None,
                 max_tokens: int | None = None, format: str | None = None, budget: Budget | None = None):
        super().__init__()
        options: dict[str, Any] = {"role": "value", "samples": samples, "temperature": temperature,
                                   "max_tokens": max_tokens, "format": format, "budget": budget}
        self.predict = Predictor(signature, lm, **options)
        self.pages = {page: Predictor(judge.signature, lm, **options) for page, judge in (judges or {}).items()}
        """By page: the predictor that judges it."""
        for predictor in self.asked:
            predictor.check_outputs("score")
        self.scales: list[list[Any]] = [[page, judge.scale] for page, judge in (judges or {}).items()]
        self.offsets = [page for page, judge in (judges or {}).items() if judge.offset]
        self.aggregate, self.scale, self.rationale = aggregate, scale, rationale

    def check_restored(self, settings: dict[str, Any]) -> None:
        """The scales and offsets of pages are one per page, of pages that have a judge."""
        for row in settings.get("scales", []):
            if not (isinstance(row, list) and len(row) == 2 and row[0] in self.pages and isinstance(
                    row[1], (LabelScale, NumberScale, NoneType))):
                raise ValueError(f"scales: {row!r} is no page that has a judge, and its scale")
        if wrong := [page for page in settings.get("offsets", []) if page not in self.pages]:
            raise ValueError(f"offsets: {wrong[0]!r} is no page that has a judge")

    @property
    def model(self) -> Model:
        """The model that judges. Raises ModelError where there is none."""
        return self.predict.model

    @property
    def asked(self) -> list[Predictor]:
        return [self.predict, *self.pages.values()]

    @property
    def predictors_by_page(self) -> dict[str | None, Predictor]:
        """Every predictor by the page that it judges; None for all other states."""
        found: dict[str | None, Predictor] = {None: self.predict}
        return found | dict(self.pages)

    async def estimate(self, situation: Situation) -> ValueEstimate:
        """The estimate of one state; the same question asked twice within one scope is answered once."""
        page, predict = self._judge_of(situation)
        before = situation.before.estimate if page in self.offsets and situation.before else None
        key = ("value", predict.identity(), self.aggregate, self.rationale, self.scale or situation.environment.name,
               page, situation.state.key, situation.notes, before and before.score)
        return await engine.context().once(key, lambda: self._ask(situation, page, predict, before))

    async def _ask(self, situation: Situation, page: str | None, predict: Predictor,
                   before: ValueEstimate | None) -> ValueEstimate:
        current, name, key = engine.context(), predict.model.name, situation.state.key
        seeds = [current.draw_seed("value", name, key, i) for i in range(predict.samples)]
        draws = await predict.draw(predict.inputs(situation), seeds, about=key)
        scale = self.scale_of(page, situation.environment)
        samples = [read_sample(draw, scale, self.rationale) for draw in draws]
        count_off_scale(draws, samples)
        found = aggregate(samples, self.aggregate)
        if page not in self.offsets or found.score is None:
            return found
        if before is None or before.score is None:
            return ValueEstimate(None, found.rationale, found.samples)  # nothing to add the offset to
        bounds = situation.environment.scale
        return ValueEstimate(min(max(before.score + found.score, bounds.bottom), bounds.top), found.rationale,
                             found.samples)

    def _judge_of(self, situation: Situation) -> tuple[str | None, Predictor]:
        page = situation.environment.page(situation)
        if page is None:
            return None, self.predict
        if page not in self.pages:
            raise StlError(f"{situation.environment.name} judges this state as {page!r}, and the value has no such "
                           "judge; build it with Value(..., judges=env.judges)")
        return page, self.pages[page]

    def scale_of(self, page: str | None, environment: Any) -> Scale:
        """The scale that the judge of a page answers on."""
        own: Scale | None = next((scale for of, scale in self.scales if of == page), None)
        return own or self.scale or environment.scale


def count_off_scale(draws: Sequence[Draw], samples: Sequence[Sample]) -> None:
    """Note the draws that were read, but whose score is none on the scale: they are missing as well."""
    off = sum(draw.fields is not None and sample.score is None for draw, sample in zip(draws, samples, strict=True))
    if off:
        engine.context().bill("value", Usage(parse_failures=off))
        engine.context().note("value draws whose score is not on the scale", off)


def read_sample(draw: Draw, scale: Scale, rationale_of: str = "nested") -> Sample:
    """One draw as a sample; of a tuned value's, with the action and the next state that it named (equation 6)."""
    if draw.fields is None:
        return Sample(None, missing=draw.missing)
    score = scale.parse(str(draw.fields["score"]))
    rationale = str(draw.fields.get("rationale", ""))
    action = draw.fields.get("best_action", NO_ACTION)
    if action != NO_ACTION and rationale_of == "nested":
        rationale = f"{action} -> {draw.fields['next_state']} . {rationale}"
    if score is None:
        return Sample(None, rationale, f"score {draw.fields['score']!r} is not on the scale")
    return Sample(score, rationale)
