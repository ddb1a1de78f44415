"""One predictor call with n isolated draws: the only place that touches dspy's adapters and trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from stl_programs import engine
from stl_programs.engine import Budget
from stl_programs.errors import ModelError, OutOfRange
from stl_programs.models import Model, load
from stl_programs.models.formats import choose_format
from stl_programs.models.formats import format_name as name_of_format
from stl_programs.records import Usage


@dataclass(frozen=True)
class Draw:
    """One draw: the parsed fields, or why there are none."""

    fields: dict[str, Any] | None
    missing: str | None = None


async def draw(role: str, model: Model, predict: dspy.Predict, inputs: dict[str, Any], seeds: Sequence[int], *,
               temperature: float, max_tokens: int, format_name: str | None = None, module: object = None,
               budget: Budget | None = None, about: Any = None) -> list[Draw]:
    """One draw per seed, in one request where the provider takes n. A draw that does not parse is missing and spoils
    no other.

    What it cost is billed to `role` and to the state key `about`. `format_name` None: the model's own.

    Raises ModelError when the model cannot be reached, BudgetSpent where a budget does not cover the call.
    """
    current, format_ = engine.context(), choose_format(format_name, model)
    messages = format_.format(predict.signature, predict.demos, inputs)
    try:
        texts = await engine.complete(current, role, model, messages, seeds, temperature=temperature,
                                      max_tokens=max_tokens, module=module, budget=budget, about=about)
    except OutOfRange as error:
        current.bill(role, Usage(out_of_range=1))
        return [Draw(None, str(error))] * len(seeds)
    draws = [_parse(format_, predict.signature, text) for text in texts]
    if failures := sum(d.fields is None for d in draws):
        current.bill(role, Usage(parse_failures=failures))
    if dspy.settings.trace is not None:
        dspy.settings.trace.extend((predict, inputs, dspy.Prediction(**d.fields)) for d in draws if d.fields)
    return draws


def _parse(format_: dspy.Adapter, signature: type[dspy.Signature], text: str | None) -> Draw:
    if not text:
        return Draw(None, "an empty reply")
    try:
        return Draw(format_.parse(signature, text))
    except AdapterParseError as error:
        return Draw(None, str(error).splitlines()[0])


def spoken_format(module: Any) -> str | None:
    """The name of the format that a module asks its model in; the one it was given where the model cannot be loaded."""
    try:
        return name_of_format(choose_format(module.format, load(module.predict.lm or module.lm)))
    except ModelError:
        return module.format
