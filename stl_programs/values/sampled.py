"""A language model that judges states, one at a time (equation 2 of the paper)."""

from __future__ import annotations

from typing import Any

import dspy

from signatures import NO_ACTION, Scale, lookahead_variant_of, signature_version
from stl_programs import engine
from stl_programs.engine import Budget
from stl_programs.environments.base import Environment
from stl_programs.models import Model, load, string_of
from stl_programs.models.formats import choose_format, known_format
from stl_programs.predictor import Draw, draw, spoken_format
from stl_programs.records import Sample, State, Task, ValueEstimate
from stl_programs.values.base import Aggregate, BaseValue, aggregate


class Value(BaseValue):
    """V(s) by a language model: several draws, each parsed by itself, aggregated.

    Args:
        signature: outputs `rationale` and `score`; a tuned value's signature also `best_action` and `next_state`.
        lm: a LiteLLM string or a dspy LM; None uses dspy.settings.lm.
        scale: how score words become numbers; the environment's by default.
        samples: draws per state. aggregate: of the draws that parsed; a state without any is missing.
        format: how the model is asked ("chat", "compact", "lookahead"); None for the model's own.
        budget: of this module over a run.
    """

    def __init__(self, signature: type[dspy.Signature], lm: Any = None, *, samples: int = 3,
                 aggregate: Aggregate = "median", scale: Scale | None = None, temperature: float = 1.0,
                 max_tokens: int = 512, format: str | None = None, budget: Budget | None = None):
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples={samples}: a value needs at least 1 draw")
        if aggregate not in ("median", "mean", "max"):
            raise ValueError(f"aggregate={aggregate!r}: choose median, mean or max")
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens}: a reply needs at least 1; budgets reserve this many")
        self.predict = dspy.Predict(signature)
        self.lm, self.samples, self.aggregate, self.scale = lm, samples, aggregate, scale
        self.temperature, self.max_tokens, self.budget = temperature, max_tokens, budget
        self.format = known_format(format)

    @property
    def model(self) -> Model:
        """The model that judges. Raises ModelError where there is none."""
        return load(self.predict.lm or self.lm)

    @property
    def prompt_format(self) -> dspy.Adapter:
        """How this value asks its model. Raises AdapterError where its adapter was trained on another format."""
        return choose_format(self.format, self.model)

    async def aforward(self, environment: Environment, task: Task, state: State) -> ValueEstimate:
        """The estimate of one state; the same state asked twice within one scope is judged once."""
        model = self.model
        key = (model.name, signature_version(self.predict.signature), self.samples, self.aggregate, state.key)
        return await engine.context().once(key, lambda: self._judge(environment, task, state, model))

    async def _judge(self, environment: Environment, task: Task, state: State, model: Any) -> ValueEstimate:
        fields = {"task": task.text, "trajectory": state.trajectory, "state": state.text}
        inputs = {name: fields[name] for name in self.predict.signature.input_fields}
        seeds = [engine.context().draw_seed("value", model.name, state.key, i) for i in range(self.samples)]
        draws = await draw("value", model, self.predict, inputs, seeds, temperature=self.temperature,
                           max_tokens=self.max_tokens, format_name=self.format, module=self, budget=self.budget,
                           about=state.key)
        scale = self.scale or environment.scale
        return aggregate([read_sample(d, scale) for d in draws], self.aggregate)

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {"kind": "Value", "lm": string_of(self.predict.lm or self.lm), "samples": self.samples,
                "aggregate": self.aggregate, "temperature": self.temperature, "max_tokens": self.max_tokens,
                "format": spoken_format(self),
                "variant": lookahead_variant_of(self.predict.signature),
                "signature": signature_version(self.predict.signature),
                "budget": self.budget.to_dict() if self.budget else None,
                "demos": [dict(demo) for demo in self.predict.demos]}


def read_sample(reply: Draw, scale: Scale) -> Sample:
    """One draw as a sample. A tuned value's rationale is "action -> next state . rationale" (equation 6)."""
    if reply.fields is None:
        return Sample(None, missing=reply.missing)
    score = scale.parse(str(reply.fields["score"]))
    rationale = str(reply.fields.get("rationale", ""))
    action = reply.fields.get("best_action", NO_ACTION)
    if action != NO_ACTION:
        rationale = f"{action} -> {reply.fields['next_state']} . {rationale}"
    if score is None:
        return Sample(None, rationale, f"score {reply.fields['score']!r} is not on the scale")
    return Sample(score, rationale)
