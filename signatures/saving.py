"""Signatures as JSON: instructions, and every field with its type and description."""

from __future__ import annotations

import ast
from typing import Annotated, Any, Literal

import dspy
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

TYPES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "list[str]": list[str], "list[int]": list[int],
    "list[float]": list[float], "dict[str, str]": dict[str, str], "dict[str, float]": dict[str, float]}
"""Types of fields that can be rebuilt from their names."""
LONGEST = 10_000
"""Characters of a type's name."""


def _identifier(name: str) -> str:
    if not name.isidentifier() or name.startswith("_"):
        raise ValueError("the name of a field is letters, digits and underscores")
    return name


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name is one line of text")
    return name


class SavedField(BaseModel):
    """One field of a saved signature."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(max_length=200), AfterValidator(_identifier)]
    role: Literal["input", "output"]
    type: Annotated[str, StringConstraints(max_length=LONGEST)]
    prefix: str | None = None
    description: str | None = None


class SavedSignature(BaseModel):
    """What a saved program says of a signature."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)]
    instructions: str
    fields: Annotated[list[SavedField], Field(min_length=1, max_length=1000)]


def signature_state(signature: type[dspy.Signature]) -> dict[str, Any]:
    """What `signature_from` makes the same signature of."""
    inputs = signature.input_fields
    return {"name": signature.__name__, "instructions": signature.instructions, "fields": [
        {"name": name, "role": "input" if name in inputs else "output", "type": type_name(field.annotation),
         "prefix": field.json_schema_extra["prefix"], "description": field.json_schema_extra["desc"]}
        for name, field in signature.fields.items()]}


def signature_from(state: dict[str, Any] | SavedSignature, present: type[dspy.Signature]) -> type[dspy.Signature]:
    """The signature that was saved. A field whose type is of another module is taken from `present`.

    Raises ValueError for such a field that `present` does not have, and for what is no signature.
    """
    saved = state if isinstance(state, SavedSignature) else SavedSignature.model_validate(state)
    fields: dict[str, Any] = {}
    for row in saved.fields:
        make = dspy.InputField if row.role == "input" else dspy.OutputField
        if row.name in fields:
            raise ValueError(f"the saved signature {saved.name} has two fields {row.name!r}")
        fields[row.name] = (_type(row, present), make(prefix=row.prefix, desc=row.description))
    try:
        signature: type[dspy.Signature] = dspy.Signature(fields, saved.instructions)
        signature.__name__ = saved.name
    except (TypeError, NameError, AttributeError, SyntaxError, ValidationError) as error:
        raise ValueError(f"the saved signature {saved.name} is none that dspy can make: "
                         f"{' '.join(str(error).split())[:200]}") from None
    return signature


def type_name(annotation: Any) -> str:
    """The name of a field's type, as a saved program says it."""
    return next((name for name, type_ in TYPES.items() if type_ == annotation), str(annotation))


def _type(row: SavedField, present: type[dspy.Signature]) -> Any:
    if row.type in TYPES:
        return TYPES[row.type]
    if row.name in present.fields and type_name(present.fields[row.name].annotation) == row.type:
        return present.fields[row.name].annotation
    if words := _words(row.type):
        return Literal[words]  # type: ignore[valid-type]
    raise ValueError(f"the saved field {row.name!r} has the type {row.type[:200]}, which this program's signature does "
                     "not have; build the program with the signature that it was saved with")


def _words(name: str) -> tuple[str | int | bool | None, ...]:
    """What a `typing.Literal[...]` may be, read as constants; () for anything else."""
    if not (name.startswith("typing.Literal[") and name.endswith("]")):
        return ()
    try:
        found = ast.literal_eval(f"({name[len('typing.Literal['):-1]},)")
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return ()
    return found if all(one is None or type(one) in (str, int, bool) for one in found) else ()
