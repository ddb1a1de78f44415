"""Scales: how a score in words becomes a number, and back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelScale:
    """A score is one of a few words, each worth a number (Tree of Thoughts: sure, likely, impossible)."""

    labels: tuple[tuple[str, float], ...]

    def parse(self, text: str) -> float | None:
        """The worth of the one label that `text` consists of; None (missing) for anything else."""
        word = text.strip().strip(".!\"'*`").lower()
        return dict(self.labels).get(word)

    def render(self, value: float) -> str:
        """The label worth nearest to `value`; of two equally near the better one."""
        return min(self.labels, key=lambda label: (abs(label[1] - value), -label[1]))[0]

    @property
    def top(self) -> float:
        return max(worth for _, worth in self.labels)

    @property
    def bottom(self) -> float:
        return min(worth for _, worth in self.labels)


@dataclass(frozen=True)
class NumberScale:
    """A score is a number from `low` to `high`, alone or as "6.67 / 10.00"."""

    low: float = 1.0
    high: float = 10.0

    def parse(self, text: str) -> float | None:
        """The number; None (missing) where there is none, it is not finite, or it lies outside the scale."""
        match = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?\s*\.?\s*", text)
        if match is None:
            return None
        value, out_of = float(match[1]), match[2]
        if out_of is not None and not math.isclose(float(out_of), self.high):
            return None
        return value if math.isfinite(value) and self.low <= value <= self.high else None

    def render(self, value: float) -> str:
        return f"{min(max(value, self.low), self.high):.2f} / {self.high:.2f}"

    @property
    def top(self) -> float:
        return self.high

    @property
    def bottom(self) -> float:
        return self.low


Scale = LabelScale | NumberScale
