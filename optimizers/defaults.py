"""Training settings that nobody passed: those that the model directory brings, else the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from optimizers.trainers.sft import LoraSettings
from stl_programs.errors import ModelError
from stl_programs.models.brought import BROUGHT, brought
from stl_programs.values import Aggregate


@dataclass(frozen=True)
class StlSettings:
    """How self-taught lookahead collects its rows, as far as that depends on the model. Defaults are the paper's.

    `rollout_aggregate`: of the draws during rollouts. `rollout_samples`: draws per state there; None for the program's.
    `expand`: look ahead from the "kept" states of a rollout or from "all" proposed ones. `others_per_top`: rows below
    the top score for each row at it, or "all".
    """

    rollout_aggregate: Aggregate = "median"
    rollout_samples: int | None = None
    expand: Literal["kept", "all"] = "kept"
    others_per_top: float | Literal["all"] = "all"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(StlSettings).items():
            if not _fits(value := getattr(self, name), hint):
                raise ValueError(f"{name}={value!r}: write {_words(hint)}")
        if self.rollout_samples is not None and self.rollout_samples < 1:
            raise ValueError(f"rollout_samples={self.rollout_samples}: a state needs at least 1 draw")
        if self.others_per_top != "all" and self.others_per_top < 0:
            raise ValueError(f"others_per_top={self.others_per_top}: at least 0, or 'all'")


def stl_settings(weights: Path, **passed: Any) -> StlSettings:
    """What was passed and is not None; for the rest what the model directory `weights` brings, else the paper's."""
    given = {name: value for name, value in passed.items() if value is not None}
    return StlSettings(**_brought(weights, "stl", StlSettings) | given)


def lora_settings(weights: Path) -> LoraSettings:
    """What the model directory `weights` brings, and the paper's for what it leaves out."""
    return LoraSettings(**_brought(weights, "lora", LoraSettings))


def _brought(weights: Path, part: Literal["stl", "lora"], kind: type[StlSettings | LoraSettings]) -> dict[str, Any]:
    """`training` / `part` of the directory's file, checked field by field. Raises ModelError."""
    file, training = weights / BROUGHT, brought(weights).get("training", {})
    if unknown := sorted(set(training) - {"stl", "lora"}):
        raise ModelError(f"{file}: training.{unknown[0]} is unknown; write lora or stl")
    found = training.get(part, {})
    if not isinstance(found, dict):
        raise ModelError(f"{file}: training.{part} is {found!r}; write an object")
    hints = get_type_hints(kind)
    for name, value in found.items():
        if name not in hints:
            raise ModelError(f"{file}: training.{part}.{name} is unknown; write {', '.join(hints)}")
        if not _fits(value, hints[name]):
            raise ModelError(f"{file}: training.{part}.{name} is {value!r}; write {_words(hints[name])}")
    try:
        kind(**found)
    except ValueError as error:
        raise ModelError(f"{file}: training.{part}.{error}") from error
    return found


def _kinds(hint: Any) -> list[Any]:
    """The alternatives of a type hint: literal values, and types."""
    if get_origin(hint) in (Union, UnionType):
        return [kind for part in get_args(hint) for kind in _kinds(part)]
    return list(get_args(hint)) if get_origin(hint) is Literal else [hint]


def _fits(value: Any, hint: Any) -> bool:
    for kind in _kinds(hint):
        if get_origin(kind) is Sequence:
            fits = isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value)
        elif not isinstance(kind, type):
            fits = value == kind
        elif isinstance(value, bool):
            fits = kind is bool
        else:
            fits = isinstance(value, (int, float) if kind is float else kind)
        if fits:
            return True
    return False


def _words(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a name", bool: "true or false", type(None): "null",
             Sequence[str]: "a list of names"}
    return " or ".join(names[kind] if kind in names else repr(kind) for kind in _kinds(hint))
