"""The settings of a Game-of-24 experiment."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Settings:
    """One experiment. The defaults are the demo's; `experiments.game24.study` varies them."""

    policy: str = "legal"
    value: str = "embedded/game24"
    policy_format: str | None = None
    value_format: str | None = None
    weights: str | None = None
    csv: str | None = None
    iterations: int = 2
    tasks: int = 100
    samples: int = 3
    aggregate: Literal["median", "mean", "max"] = "mean"
    rollout_samples: int = 3
    rollout_aggregate: Literal["median", "mean", "max"] = "max"
    width: int = 5
    expand: Literal["kept", "all"] = "all"
    filter: Literal["calculator", "none"] = "calculator"
    strict: int = 0
    variant: Literal["lv", "lv+tr", "lv+tr+r"] = "lv+tr+r"
    start: Literal["base", "continue"] = "base"
    others_per_top: float | None = 1.5
    loss: Literal["output", "input+output"] = "output"
    learning_rate: float = 6e-3
    epochs: float = 6
    batch_size: int = 16
    max_tokens: int = 512
    concurrency: int = 50
    in_flight: int = 32

    @property
    def information(self) -> str:
        """What the training may see: its name in every table."""
        return "calculator-verified" if self.filter == "calculator" else "reward-free"


def described(settings: Settings) -> dict[str, Any]:
    """The settings for a report: files by their name, not by where they lie on this disk."""
    return asdict(settings) | {name: Path(path).name if (path := getattr(settings, name)) else None
                               for name in ("csv", "weights")}


def published_list() -> str | None:
    """The published puzzle list: game24/24.csv under the folder that STL_DATA names; None where it is not there."""
    root = os.environ.get("STL_DATA")
    path = Path(root) / "game24" / "24.csv" if root else None
    return str(path) if path and path.is_file() else None
