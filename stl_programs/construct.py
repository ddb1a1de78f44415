"""A class's constructor as the schema of its settings: what a file says is checked as what is passed is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError

from stl_programs.errors import StlError
from stl_programs.outside import one_line, said, shown


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor. `schema`: of its annotation; None where that says nothing that can be checked."""

    required: bool
    schema: type[BaseModel] | None


@lru_cache(maxsize=1000)
def arguments(kind: type) -> Mapping[str, Argument]:
    """What the constructor of `kind` takes, by name; what its `**options` hand on is of the class above."""
    found: dict[str, Argument] = {}
    for one in kind.__mro__:
        init = one.__dict__.get("__init__")
        if init is None or one is object:
            continue
        own = [*inspect.signature(init).parameters.values()][1:]
        hints = _hints(init)
        for parameter in own:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, Argument(
                    parameter.default is parameter.empty, _schema(hints.get(parameter.name, Any))))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except Exception:  # names that are only there for a type checker, or in a notebook's cell
        return {}


def _schema(hint: Any) -> type[BaseModel] | None:
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        return create_model("Argument", __config__=config, value=(hint, ...))
    except (PydanticUserError, TypeError, NameError):
        return None


def check_types(kind: type, given: Mapping[str, Any]) -> None:
    """Raises StlError for an argument of `given` that is of another type than the constructor of `kind` says."""
    known = arguments(kind)
    for name, value in given.items():
        schema = known[name].schema if name in known else None
        if schema is None:
            continue
        try:
            schema(value=value)
        except ValidationError as failure:
            about = said(failure).partition(": ")[2]
            raise StlError(f"{kind.__name__} takes no {name}={shown(value)}: {about}") from None


def missing(kind: type, given: Mapping[str, Any]) -> list[str]:
    """The arguments that the constructor of `kind` needs beside `given`."""
    return [name for name, argument in arguments(kind).items() if argument.required and name not in given]


def construct(kind: type, given: Mapping[str, Any]) -> Any:
    """`kind` by its constructor, of what it takes of `given`. Raises StlError for what the constructor refuses."""
    known = {name: value for name, value in given.items() if name in arguments(kind)}
    check_types(kind, known)
    try:
        return kind(**known)
    except StlError:
        raise
    except Exception as error:  # a class of the user's may refuse in any way
        raise StlError(f"{kind.__name__}: {one_line(error)}") from None
