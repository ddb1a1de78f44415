"""From text to index terms, as Lucene's English analyzer makes them.

Words by UAX #29 (a colon joins letters, an emoji is a word), the possessive stripped, lower case, 33 stop words left
out, and Porter's stemmer with its author's two extensions.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import regex

_STOP_WORDS = """
    a an and are as at be but by for if in into is it no not of on or such that the their then there these
    they this to was will with
    """
STOP_WORDS = frozenset(_STOP_WORDS.split())

LONGEST = 255
"""Characters of a word; longer ones are cut into several, as the tokenizer's buffer does."""
_APOSTROPHES = "'’＇"
_PICTURES = (
    "\u00a9\u00ae\u2122\u203c\u2049\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3\u23f8-\u23fa\u24c2\u25aa"
    "\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d"
    "\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf"
    "\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001f0ff"
    "\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e\U0001f17f\U0001f18e\U0001f191-\U0001f19a"
    "\U0001f1ad-\U0001f1e5\U0001f201-\U0001f20f\U0001f21a\U0001f22f\U0001f232-\U0001f23a\U0001f23c-\U0001f23f"
    "\U0001f249-\U0001f3fa\U0001f400-\U0001f53d\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f774-\U0001f77f"
    "\U0001f7d5-\U0001f7ff\U0001f80c-\U0001f80f\U0001f90c-\U0001f93a\U0001f93c-\U0001f945\U0001f947-\U0001faff")
"""Pictographs of the Unicode version that the reference's tokenizer was made for; later versions withdrew some."""


def _word_pattern() -> Any:
    extend = r"[\p{WB=Format}\p{WB=Extend}\p{WB=ZWJ}]*+"
    numeric = rf"(?:\p{{WB=Numeric}}{extend})"
    letter = rf"(?:[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{extend})"
    katakana = rf"(?:\p{{WB=Katakana}}{extend})"
    joint = rf"(?:\p{{WB=ExtendNumLet}}{extend})"
    between_letters = rf"(?:[\p{{WB=MidLetter}}:\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{extend})"
    between_numbers = rf"(?:[\p{{WB=MidNum}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{extend})"
    run = (rf"(?:{katakana}(?:{joint}*{katakana})*|(?:{numeric}(?:(?:{joint}*|{between_numbers}){numeric})*"
           rf"|{letter}(?:(?:{joint}*|{between_letters}){letter})*)++)")
    word = rf"{joint}*+{run}(?:{joint}++{run})*+{joint}*+"
    single = rf"[\p{{Han}}\p{{Hiragana}}]{extend}"
    picture = rf"[{_PICTURES}]{extend}"
    emoji = rf"{picture}(?:(?<=\u200d){picture})*+|\p{{RI}}\p{{RI}}{extend}|[#*]\ufe0f{extend}"
    return regex.compile(rf"{word}|{single}|{emoji}", regex.V1)


@cache
def _words() -> Any:
    return _word_pattern()


def tokens(text: str) -> list[str]:
    """The words of `text` in their order, as they stand."""
    found: list[str] = _words().findall(text)
    if len(text) > LONGEST:
        found = [word[i:i + LONGEST] for word in found for i in range(0, len(word), LONGEST)]
    return found


def analyze(text: str) -> list[str]:
    """The index terms of `text`, in order and with repetitions."""
    return [term for word in tokens(text) if (term := _term(word)) is not None]


@lru_cache(maxsize=200_000)
def _term(word: str) -> str | None:
    if word[-1:] in ("s", "S") and word[-2:-1] and word[-2] in _APOSTROPHES:
        word = word[:-2]
    word = word.lower()
    return None if word in STOP_WORDS else stem(word)


def stem(word: str) -> str:
    """Porter's stem of a word of more than two letters, with the endings -bli and -logi of its author's later version.

    Both leave words that no later step of the algorithm touches but for -able and -ible, so they can follow it.
    """
    if len(word) <= 2:
        return word
    found: str = _porter()(word)
    if found.endswith("logi") and _has_measure(found[:-4]):
        return found[:-1]
    if found.endswith("bli") and _has_measure(found[:-3]):
        return str(_porter()(found[:-1] + "e"))
    return found


def _has_measure(start: str) -> bool:
    """Whether a vowel is followed by a consonant in it; y after a consonant is a vowel."""
    after_vowel = before_vowel = False
    for place, letter in enumerate(start):
        vowel = letter in "aeiou" or (letter == "y" and place > 0 and not before_vowel)
        if after_vowel and not vowel:
            return True
        after_vowel = before_vowel = vowel
    return False


@cache
def _porter() -> Any:
    import Stemmer

    return Stemmer.Stemmer("porter").stemWord
