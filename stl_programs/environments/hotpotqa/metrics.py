"""How an answer is compared with the right one: the measures of the data set."""

from __future__ import annotations

import re
import string
from collections import Counter

CLOSED = frozenset({"yes", "no", "noanswer"})
"""Answers that are right or wrong as a whole."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


def normal(text: str) -> str:
    """Lower case, without punctuation and articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, right: str) -> bool:
    """Whether the two are equal once normalised."""
    return normal(answer) == normal(right)


def f1(answer: str, right: str) -> float:
    """The harmonic mean of precision and recall over words; 0 where one of two different answers is yes, no or
    noanswer."""
    said, wanted = normal(answer), normal(right)
    if said != wanted and (said in CLOSED or wanted in CLOSED):
        return 0.0
    words, goal = said.split(), wanted.split()
    common = sum((Counter(words) & Counter(goal)).values())
    return 2 * common / (len(words) + len(goal)) if common else 0.0
