"""Signatures as JSON: instructions, and every field with its type and description."""

from __future__ import annotations

from typing import Any, Literal

import dspy

TYPES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "list[str]": list[str], "list[int]": list[int],
    "list[float]": list[float], "dict[str, str]": dict[str, str], "dict[str, float]": dict[str, float]}
"""Types of fields that can be rebuilt from their names."""


def signature_state(signature: type[dspy.Signature]) -> dict[str, Any]:
    """What `signature_from` makes the same signature of."""
    inputs = signature.input_fields
    return {"name": signature.__name__, "instructions": signature.instructions, "fields": [
        {"name": name, "role": "input" if name in inputs else "output", "type": type_name(field.annotation),
         "prefix": field.json_schema_extra["prefix"], "description": field.json_schema_extra["desc"]}
        for name, field in signature.fields.items()]}


def signature_from(state: dict[str, Any], present: type[dspy.Signature]) -> type[dspy.Signature]:
    """The signature that was saved. A field whose type is of another module is taken from `present`.

    Raises ValueError for such a field that `present` does not have.
    """
    fields: dict[str, Any] = {}
    for row in state["fields"]:
        make = dspy.InputField if row["role"] == "input" else dspy.OutputField
        fields[row["name"]] = (_type(row, present), make(prefix=row["prefix"], desc=row["description"]))
    signature: type[dspy.Signature] = dspy.Signature(fields, state["instructions"])
    signature.__name__ = state["name"]
    return signature


def type_name(annotation: Any) -> str:
    """The name of a field's type, as a saved program says it."""
    return next((name for name, type_ in TYPES.items() if type_ == annotation), str(annotation))


def _type(row: dict[str, Any], present: type[dspy.Signature]) -> Any:
    if row["type"] in TYPES:
        return TYPES[row["type"]]
    if row["name"] in present.fields and type_name(present.fields[row["name"]].annotation) == row["type"]:
        return present.fields[row["name"]].annotation
    if row["type"].startswith("typing.Literal["):
        words = row["type"].removeprefix("typing.Literal[").removesuffix("]").split(", ")
        return Literal[tuple(word.strip("'\"") for word in words)]  # type: ignore[valid-type]
    raise ValueError(f"the saved field {row['name']!r} has the type {row['type']}, which this program's signature does "
                     "not have; build the program with the signature that it was saved with")
