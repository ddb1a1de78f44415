"""One predictor call with n isolated draws: the only place that touches dspy's adapters and trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from stl_programs import engine
from stl_programs.errors import OutOfRange
from stl_programs.models import Model
from stl_programs.records import Usage


@dataclass(frozen=True)
class Draw:
    """One draw: the parsed fields, or why there are none."""

    fields: dict[str, Any] | None
    missing: str | None = None


async def draw(role: str, model: Model, predict: dspy.Predict, inputs: dict[str, Any], seeds: Sequence[int], *,
               temperature: float, max_tokens: int) -> list[Draw]:
    """One draw per seed, in one request. A draw that does not parse is missing and spoils no other.

    What it cost is billed to `role`. Raises ModelError when the model cannot be reached.
    """
    format_ = model.prompt_format
    messages = format_.format(predict.signature, predict.demos, inputs)
    try:
        reply = await model.complete(messages, seeds, temperature=temperature, max_tokens=max_tokens)
    except OutOfRange as error:
        engine.context().bill(role, Usage(out_of_range=1))
        return [Draw(None, str(error))] * len(seeds)
    draws = [_parse(format_, predict.signature, text) for text in reply.texts]
    engine.context().bill(role, Usage(
        calls=1, samples=len(draws), prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens,
        seconds=reply.seconds, dollars=reply.dollars, parse_failures=sum(d.fields is None for d in draws)))
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
