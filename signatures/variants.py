"""Versions of a signature, and what a tuned value says before its score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from functools import cache
from typing import Literal

import dspy

Variant = Literal["lv", "lv+tr", "lv+tr+r"]
"""What a tuned value says before its score (the paper's ablation): nothing; action and next state; also a rationale."""

_VARIANT_FIELDS: dict[Variant, set[str]] = {
    "lv": {"score"}, "lv+tr": {"best_action", "next_state", "score"},
    "lv+tr+r": {"best_action", "next_state", "rationale", "score"}}


def lookahead_variant(signature: type[dspy.Signature], variant: Variant) -> type[dspy.Signature]:
    """A Lookahead signature with only the output fields of `variant`."""
    if variant not in _VARIANT_FIELDS:
        raise ValueError(f"variant={variant!r}: choose one of {', '.join(_VARIANT_FIELDS)}")
    for name in [name for name in signature.output_fields if name not in _VARIANT_FIELDS[variant]]:
        signature = signature.delete(name)
    return signature


def lookahead_variant_of(signature: type[dspy.Signature]) -> Variant | None:
    """Which variant a value signature is; None for a base one (rationale and score)."""
    outputs = set(signature.output_fields)
    return next((variant for variant, fields in _VARIANT_FIELDS.items() if fields == outputs), None)


def signature_version(signature: type[dspy.Signature]) -> str:
    """Twelve hex digits over instructions, field names, types and descriptions: new words, new version."""
    return _version(signature)  # type: ignore[arg-type]


@cache
def _version(signature: Hashable) -> str:
    fields = [(name, str(field.annotation), (field.json_schema_extra or {}).get("desc"))
              for name, field in signature.fields.items()]  # type: ignore[attr-defined]
    text = json.dumps([signature.instructions, fields])  # type: ignore[attr-defined]
    return hashlib.sha256(text.encode()).hexdigest()[:12]
