"""Files that somebody else wrote: read within limits, parsed into a schema, never trusted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stl_programs.errors import StlError

CONFIG_BYTES = 2**20
"""Most bytes of a configuration, a record or a list."""
DEEPEST = 64
"""Most objects and lists inside of each other."""
MOST_DIGITS = 300
"""Of a whole number: any shorter one is a float too."""
CHUNK = 2**20

Schema = TypeVar("Schema", bound=BaseModel)
Error = Callable[[str], StlError]


class Strict(BaseModel):
    """A schema that converts nothing and knows all of its fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def read_bytes(path: Path, limit: int, what: str, error: Error = StlError) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Args:
        what: what the file should be, as in "a price file".
        error: made of the one line that says what is wrong.
    """
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # a pipe would wait
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"{path} is no file; give {what}")
            data = file.read(limit + 1)
    except (OSError, ValueError) as failure:
        raise error(f"cannot read {path}: {_reason(failure)}; give {what}") from None
    if len(data) > limit:
        raise error(f"{path} is larger than {limit:,} bytes, the most of {what}; look at what it is")
    return data


def read_text(path: Path, limit: int, what: str, error: Error = StlError) -> str:
    """The same as text in UTF-8."""
    try:
        return read_bytes(path, limit, what, error).decode("utf-8")
    except UnicodeDecodeError as failure:
        raise error(f"{path} is not {what}: byte {failure.start} is no UTF-8; save it as UTF-8") from None


def read_json(path: Path, limit: int, what: str, error: Error = StlError) -> Any:
    """The JSON of a file: UTF-8, finite numbers, at most DEEPEST deep."""
    return parse_json(read_text(path, limit, what, error), f"{path} is not {what}", error)


def parse_json(text: str | bytes, label: str, error: Error = StlError) -> Any:
    """`text` as JSON of finite numbers. What is wrong is said in one line that begins with `label`."""
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
        check_depth(found)
        return found
    except RecursionError:
        raise error(f"{label}: it is nested more than {DEEPEST} deep; look at who wrote it") from None
    except ValueError as failure:
        raise error(f"{label}: {one_line(failure)}; mend it, or write it again") from None


def check_depth(found: Any) -> None:
    """Raises ValueError for what is nested more than DEEPEST deep."""
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        level = [inner for one in level if isinstance(one, (dict, list))
                 for inner in (one.values() if isinstance(one, dict) else one) if isinstance(inner, (dict, list))]
        if not level:
            return
    raise ValueError(f"it is nested more than {DEEPEST} deep")


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _finite(word: str) -> float:
    if not isfinite(number := float(word)):
        raise ValueError(f"{word[:20]} is too large a number")
    return number


def _whole(word: str) -> int:
    if len(word) > MOST_DIGITS:
        raise ValueError(f"a number of {len(word)} digits is too large")
    return int(word)


def parsed(schema: type[Schema], found: Any, label: str, error: Error = StlError) -> Schema:
    """`found` as what `schema` describes. What is wrong is said in one line that begins with `label`."""
    try:
        return schema.model_validate(found)
    except (ValidationError, RecursionError) as failure:
        raise error(f"{label}: {said(failure)}; correct that, or write the file again") from None


def said(failure: Exception) -> str:
    """The first thing that a validation found, with its place and value; of another error, its words in one line."""
    if not isinstance(failure, ValidationError):
        return one_line(failure)
    first = failure.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"] if not re.search(r"[\[(]|^constrained-", str(part)))
    if first["type"] == "missing":
        return f"{place[:100]} is missing"
    if first["type"] == "extra_forbidden":
        return f"{place[:100]!r} is unknown"
    about = first["msg"].removeprefix("Value error, ")
    return one_line(f"{place[:100] or 'it'} is {shown(first['input'])}: {about[:1].lower()}{about[1:]}")


def shown(value: Any) -> str:
    """A value, short enough for a message."""
    if isinstance(value, (dict, list)):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def one_line(failure: object) -> str:
    """What an error says, in one line short enough for a message."""
    return " ".join(str(failure).split())[:300] or type(failure).__name__


def _reason(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or one_line(failure)


# Paths

def check_plain(path: Path, within: Path, what: str, error: Error = StlError) -> None:
    """Raises an error where `path` is, or below `within` passes, a symbolic link, or leaves `within`."""
    try:
        steps = path.relative_to(within).parts
        linked = [step for i in range(len(steps)) if (step := within.joinpath(*steps[:i + 1])).is_symlink()]
        if not linked and (".." in steps or not path.resolve().is_relative_to(within.resolve())):
            raise ValueError("outside")
    except (OSError, ValueError, RuntimeError):
        raise error(f"{what} {shown(str(path))} is not inside {within}; put it there") from None
    if linked:
        raise error(f"{what} {path}: {linked[0].name} is a symbolic link, and none is followed; put the files there "
                    "themselves")


def write_atomically(path: Path, chunks: Iterable[bytes], what: str, error: Error = StlError) -> None:
    """Write a file whole or not at all; a symbolic link in its place is replaced, not followed."""
    partial = path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}.partial")
    try:
        with partial.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, ValueError) as failure:
        raise error(f"cannot write {what} {path}: {_reason(failure)}; look at its folder and the space that is left"
                    ) from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)


def chunks_of(path: Path, limit: int, what: str, error: Error = StlError) -> Iterable[bytes]:
    """The content of a regular file that is no link, piece by piece. Raises an error beyond `limit` bytes."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise error(f"{path} is no file; give {what}")
            if about.st_size > limit:
                raise error(f"{path} has {about.st_size:,} bytes, and {what} at most {limit:,}; look at what it is")
            while chunk := file.read(CHUNK):
                yield chunk
    except (OSError, ValueError) as failure:
        raise error(f"cannot read {path}: {_reason(failure)}; give {what}") from None
