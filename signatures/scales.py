"""Scales: how a score in words becomes a number, and back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LONGEST = 200
"""Characters of a line that may hold a score."""
_NUMBER = re.compile(r"([-+]?[0-9]{1,30}(?:\.[0-9]{1,60})?) ?(?:(?:/|out of|of) ?([0-9]{1,30}(?:\.[0-9]{1,60})?))?"
                     r"(?: ?(?:points?|pts))?")
_DIGIT = re.compile(r"[0-9]")
_NAMED = re.compile(r"(?:(?:the|my|final|overall|correctness) )*(?:score|rating|value|answer|verdict|label)"
                    r"[*_`]* ?(?:is|:|=) ?")
_AROUND = " .!,;:*_`\"'~#"
_BOXED = re.compile(r"\$?\\boxed\{([^{}]{1,50})\}\$?")


def bare(text: str) -> tuple[str, str]:
    """The first line of a score field without emphasis, quotes and the word "score", in lower case; and what follows.

    A marker of the next field that was glued to it ends it.
    """
    line, _, prose = text.partition("[[ ##")[0].strip().partition("\n")
    if len(line) > LONGEST:
        return "", prose
    line = " ".join(line.split()).lower().strip(_AROUND)
    if boxed := _BOXED.fullmatch(line):
        line = boxed[1].strip()
    return line[match.end():].strip(_AROUND) if (match := _NAMED.match(line)) else line, prose.lower()


@dataclass(frozen=True)
class LabelScale:
    """A score is one of a few words, each worth a number (Tree of Thoughts: sure, likely, impossible)."""

    labels: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        if len({worth for _, worth in self.labels}) < 2 or not all(math.isfinite(worth) for _, worth in self.labels):
            raise ValueError(f"LabelScale(labels={self.labels!r}): it needs two different finite worths at least")

    def parse(self, text: str) -> float | None:
        """The worth of the one label that `text` consists of; None (missing) for anything else."""
        worths = {label.lower(): worth for label, worth in self.labels}
        said, prose = bare(text)
        if any(re.search(rf"\b{re.escape(label)}\b", prose) for label in worths if said != label):
            return None  # it says two things
        return worths.get(said)

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
    """A score is a number from `low` to `high`: "7", "6.67 / 10.00", "7 out of 10", "**Score:** 7", also before prose
    that names no other number."""

    low: float = 1.0
    high: float = 10.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"NumberScale(low={self.low!r}, high={self.high!r}): two finite numbers, the lower first")

    def parse(self, text: str) -> float | None:
        """The number; None (missing) where there is none, it is not finite, or it lies outside the scale."""
        said, prose = bare(text)
        match = _NUMBER.fullmatch(said)
        if match is None or _DIGIT.search(prose):
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
