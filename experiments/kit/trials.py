"""Three trials of a task, and which of them is scored: the first, the one of the method's own choice, the oracle's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.kit.evaluation import Cell, OnProgress, evaluate
from stl_programs import SearchProgram
from stl_programs.records import Task

FIRST, OWN, ORACLE = "first", "own choice", "oracle's best"
SCORED = ("first: the first of {n} trials; own choice: the one of {n} whose answer the value in use judges best, with "
          "the cost of all; oracle's best: the one of {n} that the true score likes best, which no method may know")
Outcome = dict[str, Any]


def trials(program: SearchProgram, tasks: Sequence[Task], *, row: str, split: str, folder: Path, count: int = 3,
           concurrency: int = 64, in_flight: int = 32, progress: OnProgress | None = None) -> list[Cell]:
    """A cell for each way to choose among `count` trials (seeds 0, 1, ...); of one trial, the first alone."""
    cell = evaluate(program, tasks, row=row, split=split, seeds=range(count), folder=folder, concurrency=concurrency,
                    in_flight=in_flight, keep_trees=True, progress=progress)
    first = replace(cell, setting={"trial": FIRST}, seeds=[0], outcomes=cell.outcomes[:1])
    return [first] if count == 1 else [first, _picked(cell, OWN, _own), _picked(cell, ORACLE, _true)]


def _picked(cell: Cell, name: str, key: Callable[[Outcome], float]) -> Cell:
    """Of every task the trial with the largest key, the earliest of equals, with what all its trials cost."""
    chosen = []
    for attempts in zip(*cell.outcomes, strict=True):
        best = max(attempts, key=key)
        summed = {name: sum(one[name] for one in attempts) for name in ("states_expanded", "states_judged", "seconds")}
        chosen.append({**best, **summed, "trial": attempts.index(best), "usage": _together(attempts)})
    return replace(cell, setting={"trial": name}, outcomes=[chosen])


def _own(outcome: Outcome) -> float:
    """What the value in use thinks of the answer; a failed trial, and one that it could not judge, come last."""
    if outcome["error"] is not None:
        return float("-inf")
    return -1e300 if outcome["own_value"] is None else float(outcome["own_value"])


def _true(outcome: Outcome) -> float:
    return float(outcome["score"]) if outcome["error"] is None else -1.0


def _together(attempts: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in attempts:
        for role, usage in one["usage"].items():
            sums = found.setdefault(role, {})
            for name, amount in usage.items():
                before = sums.get(name, 0)
                sums[name] = None if before is None or amount is None else before + amount
    return found
