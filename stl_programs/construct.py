"""Signatures as schemas: what is passed to a constructor or a function is checked before anything is done, and what a
file says of a constructor's settings is checked alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import lru_cache, wraps
from math import inf
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from stl_programs.errors import SettingError, StlError
from stl_programs.outside import one_line, shown

P = ParamSpec("P")
R = TypeVar("R")
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=-inf)]
"""Any number, also one that is never reached; not NaN."""
Between = Annotated[float, Field(gt=0, lt=1)]
Discount = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=0, le=65535)]
Share = Annotated[float, Field(ge=0, le=1)]


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: each argument that is annotated as a number, a word, a choice, a function or a dataclass is checked
    when the function is called. What a range annotates (`Count`, `Share`, ...) holds for it.

    The function raises SettingError, in one line, for an argument that is of another type or out of range.

    Example:
        >>> @checked
        ... def keep(width: Count = 5): ...
        >>> keep(0)
        Traceback (most recent call last):
        stl_programs.errors.SettingError: keep(width=0): it should be greater than or equal to 1
    """
    signature, name = inspect.signature(function), function.__qualname__.removesuffix(".__init__")

    def check(*args: P.args, **given: P.kwargs) -> None:
        schemas = _plain_schemas(function)
        for argument, value in signature.bind(*args, **given).arguments.items():
            _check(schemas.get(argument), name, argument, value)

    @wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> R:
        check(*args, **given)
        return function(*args, **given)

    @wraps(function)
    async def call_later(*args: P.args, **given: P.kwargs) -> Any:
        check(*args, **given)
        return await cast(Any, function)(*args, **given)

    return cast(Any, call_later if inspect.iscoroutinefunction(function) else call)


def checked_class(kind: type[R]) -> type[R]:
    """The same for the constructor of a dataclass."""
    kind.__init__ = checked(kind.__init__)  # type: ignore[method-assign,misc]
    return kind


@lru_cache(maxsize=1000)
def _plain_schemas(function: Callable[..., Any]) -> Mapping[str, type[BaseModel]]:
    hints = _hints(function)
    plain = [one.name for one in inspect.signature(function).parameters.values()
             if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and _is_plain(hints.get(one.name, Any))]
    found = {name: _schema(hints[name]) for name in plain}
    return {name: schema for name, schema in found.items() if schema is not None}


def _is_plain(hint: Any) -> bool:
    """Whether a value is seen to be of a type by itself: no container, no class that others stand in for."""
    if get_origin(hint) in (Union, UnionType):
        return all(map(_is_plain, get_args(hint)))
    if get_origin(hint) is Annotated:
        return _is_plain(get_args(hint)[0])
    if get_origin(hint) in (Literal, Callable) or hint is NoneType:
        return True
    return hint in (bool, int, float, str) or (is_dataclass(hint) and isinstance(hint, type))


def _check(schema: type[BaseModel] | None, owner: str, argument: str, value: Any) -> None:
    """Raises SettingError, which says all that the argument may be, for a value that is none of it."""
    try:
        if schema is not None:
            schema(value=value)
    except ValidationError as failure:
        wrong = failure.errors(include_url=False, include_context=False)
        all_of = dict.fromkeys(error["msg"].removeprefix("Input should be ") for error in wrong)
        raise SettingError(one_line(f"{owner}({argument}={shown(value)}): it should be {', or '.join(all_of)}")
                           ) from None


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
        return get_type_hints(function, include_extras=True)
    except Exception:  # names that are only there for a type checker, or in a notebook's cell
        return {}


def _schema(hint: Any) -> type[BaseModel] | None:
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        return create_model("Argument", __config__=config, value=(hint, ...))
    except (PydanticUserError, TypeError, NameError):
        return None


def check_types(kind: type, given: Mapping[str, Any]) -> None:
    """Raises SettingError for an argument of `given` that the constructor of `kind` does not take."""
    known = arguments(kind)
    for name, value in given.items():
        _check(known[name].schema if name in known else None, kind.__name__, name, value)


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
