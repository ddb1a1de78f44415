"""Training settings that nobody passed: those that the model directory brings, else the paper's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from optimizers.trainers.sft import LoraSettings
from stl_programs.construct import Count, NotNegative, checked_class
from stl_programs.errors import ModelError
from stl_programs.models.brought import BROUGHT, brought
from stl_programs.values import Aggregate


@checked_class
@dataclass(frozen=True)
class StlSettings:
    """How self-taught lookahead collects its rows, as far as that depends on the model. Defaults are the paper's.

    `rollout_aggregate`: of the draws during rollouts. `rollout_samples`: draws per state there; None for the program's.
    `expand`: look ahead from the "kept" states of a rollout or from "all" proposed ones. `others_per_top`: rows below
    the top score for each row at it, or "all".
    """

    rollout_aggregate: Aggregate = "median"
    rollout_samples: Count | None = None
    expand: Literal["kept", "all"] = "kept"
    others_per_top: NotNegative | Literal["all"] = "all"


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
    names = [field.name for field in fields(kind)]
    if strange := [name for name in found if name not in names]:
        raise ModelError(f"{file}: training.{part}.{strange[0]} is unknown; write {', '.join(names)}")
    try:
        kind(**found)
    except ValueError as error:
        raise ModelError(f"{file}: training.{part}: {error}") from error
    return found
