"""What saved states say, by schema; and limits of settings, the same for a constructor and for a file."""

from __future__ import annotations

import math
from typing import Annotated, Any

import dspy
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from signatures import LabelScale, NumberScale, Scale
from signatures.saving import SavedSignature
from stl_programs.engine import Budget
from stl_programs.models.adapters import AdapterRecord
from stl_programs.outside import Strict

MOST_SAMPLES, MOST_TOKENS = 10_000, 2**31
"""Draws of a question, and tokens of a draw, that no provider gives."""
Line = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[^\x00-\x1f\x7f]+$")]


class SavedPredictor(BaseModel):
    """What a saved program says of a predictor. Demonstrations are the user's own, and of any fields."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    signature: SavedSignature
    settings: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    traces: list[Any] = Field(default_factory=list)
    train: list[Any] = Field(default_factory=list)
    demos: list[dict[str, Any] | dspy.Example] = Field(default_factory=list)
    lm: Line | dict[str, Any] | None
    adapter: AdapterRecord | None
    budget: dict[str, Any] | None = None


class SavedModule(BaseModel):
    """What a saved program says of a module: kind, settings and parts; of a search, its environment too."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: Line
    settings: dict[str, Any]
    parts: dict[str, Any]
    environment: str | None = None


class SavedSettings(BaseModel):
    """What dspy's own saving says of a module: the settings, and the shape of what they belong to."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: Line
    shape: str
    settings: dict[str, Any]


class Labels(Strict):
    """A saved scale of words."""

    labels: Annotated[list[Annotated[list[Line | float], Field(min_length=2, max_length=2)]],
                      Field(min_length=1, max_length=1000)]

    def scale(self) -> Scale:
        for word, worth in self.labels:
            if not isinstance(word, str) or isinstance(worth, str):
                raise ValueError(f"the label {word!r}, {worth!r} is no word and its worth")
        return LabelScale(tuple((str(word), float(worth)) for word, worth in self.labels))


class Numbers(Strict):
    """A saved scale of numbers."""

    low: float
    high: float

    def scale(self) -> Scale:
        if not self.low < self.high:
            raise ValueError(f"a scale from {self.low} to {self.high} has no room; its low end is below its high end")
        return NumberScale(float(self.low), float(self.high))


def budget_of(limits: Any) -> Budget:
    """A saved budget. Raises ValueError for what is none."""
    if not isinstance(limits, dict) or (unknown := sorted(set(map(str, limits)) - set(Budget.__dataclass_fields__))):
        raise ValueError(f"a budget limits {', '.join(Budget.__dataclass_fields__)}, not "
                         f"{unknown[0][:100] if isinstance(limits, dict) else type(limits).__name__}")
    return Budget(**limits)


def check_draws(role: Any, samples: Any, temperature: Any, max_tokens: Any, logprobs: Any, budget: Any) -> None:
    """Raises ValueError for a number of draws, or for draws, that cannot be asked for."""
    if not _whole(samples, MOST_SAMPLES):
        raise ValueError(f"samples={samples!r}: at least 1 draw is needed, at most {MOST_SAMPLES:,}")
    if max_tokens is not None and not _whole(max_tokens, MOST_TOKENS):
        raise ValueError(f"max_tokens={max_tokens!r}: a reply needs at least 1, at most {MOST_TOKENS:,}; budgets "
                         "reserve this many")
    if temperature is not None and not (_number(temperature) and 0 <= temperature <= 100):
        raise ValueError(f"temperature={temperature!r}: a number from 0 to 100, or None for what the lm says")
    if not isinstance(role, str):
        raise ValueError(f"role={role!r}: a name, as bills show it")
    if not isinstance(logprobs, bool) or not (budget is None or isinstance(budget, Budget)):
        raise ValueError(f"logprobs={logprobs!r}, budget={budget!r}: pass True or False, and a Budget, as "
                         "Budget(calls=50)")


def _whole(number: Any, most: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= most


def _number(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
