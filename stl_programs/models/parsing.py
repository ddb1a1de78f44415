"""Replies as fields, in one pass over the text: nothing that a model writes makes reading slow, deep or ambiguous."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from typing import Any

from dspy.adapters.utils import parse_value
from pydantic import TypeAdapter

REPAIRED = 1000
"""Characters of a broken list or number that dspy may try to repair: its repair takes longer than its text is long."""
COMPLETED = "completed"
_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_FENCE = re.compile(r"```(?:json|python)?\s*\n?")


def sections(text: str, known: Iterable[str]) -> dict[str, str]:
    """What stands under each header of a reply in dspy's chat format.

    Raises ValueError where a known field is said twice, or after the reply's end.
    """
    names, found, at, ended = set(known), dict[str, list[str]](), list[str](), False
    for line in text.splitlines():
        match = _HEADER.match(line.strip())
        if match is None:
            at.append(line)
            continue
        name, rest = match[1], line.strip()[match.end():].strip()
        if name in names and (ended or name in found):
            raise ValueError(f"the field {name} is said {'after the end' if ended else 'twice'}")
        ended |= name == COMPLETED
        at = found.setdefault(name, [])
        if rest:
            at.append(rest)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def value_of(text: str, annotation: Any) -> Any:
    """A field's text as its type; strict JSON or Python first, and dspy's repair for short texts alone.

    Raises ValueError for what is neither.
    """
    if annotation is str:
        return text
    plain = text.strip()
    if (fence := _FENCE.match(plain)) is not None and plain.endswith("```"):
        plain = plain[fence.end():-3].strip()
    for read in (json.loads, ast.literal_eval):
        try:
            return TypeAdapter(annotation).validate_python(read(plain))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            if len(plain) > 100 * REPAIRED:
                break  # Python's own reader is for short texts
    if len(text) > REPAIRED:
        raise ValueError(f"{len(text)} characters that are no {getattr(annotation, '__name__', annotation)}")
    try:
        return parse_value(text, annotation)
    except RecursionError:
        raise ValueError("nested too deep") from None
