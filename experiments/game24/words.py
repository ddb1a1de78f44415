"""What the tables of the Game-of-24 experiment say: titles, notes, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stl_programs.secrets import shown_url

STRONG = "V0, 8 samples"
"""The untrained value with more draws: the row that a tuned one has to beat."""
SCORED: dict[str, Any] = {"measure": "success_rate", "baselines": ("V0", STRONG), "chosen_on": "validation"}
"""How rows are compared: puzzles solved, against V0 and V0 with more draws; "after STL" is chosen on validation."""


def title(information: str) -> str:
    return f"Game of 24, value model tuned by its own lookahead - training: {information}"


def notes(csv: str | None, stl_seeds: Sequence[int], policy: str = "legal") -> str:
    """What a reader has to know beside the table."""
    legal = "LegalMoves calls no model. " if policy == "legal" else ""
    splits = "the published list (rows of 24.csv)" if csv else "the project's own, of the enumeration"
    return f"A task is a puzzle. {legal}STL seeds: {', '.join(map(str, stl_seeds))}. Splits: {splits}."


def following(mlflow_store: str | None) -> list[str]:
    """What to type next, a line each."""
    store = shown_url(mlflow_store) if mlflow_store else ""
    tracked = [f"  make ui                                  runs side by side in MLflow ({store})"]
    return ["Beside them: rollouts, data and adapters of every iteration.", "Next:", *(tracked if store else []),
            "  docs/tutorial.md                         compose a search and tune its value in Python",
            "  python -m experiments.game24 --value hosted_vllm/NAME --weights DIR   the same with your model",
            "  make study                               every setting, with seeds and ablations"]
