"""Scoring a search program: its own answer to every puzzle, once per seed, checked after the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stl_programs import SearchProgram, Status, TaskResult, run_sync, run_tasks
from stl_programs.records import Task

OnProgress = Callable[[int, int, str], None]


@dataclass
class Cell:
    """One row of a table on one split at one beam: every seed, every puzzle.

    `outcomes[seed][puzzle]` is a JSON-ready dict: task, solved, answer, error, states_expanded, states_judged, seconds
    and usage (per module, zeros left out). The scored trial is always the first and only one, with the answer that the
    program itself chose.
    """

    row: str
    split: str
    beam: int
    information: str
    policy: str
    value: str
    samples: int
    seeds: list[int]
    outcomes: list[list[dict[str, Any]]]

    @property
    def solved(self) -> np.ndarray:
        """[seeds, puzzles] of 0 and 1; a failed task counts 0."""
        return np.array([[float(o["solved"]) for o in per_seed] for per_seed in self.outcomes])

    @property
    def failures(self) -> int:
        return sum(o["error"] is not None for per_seed in self.outcomes for o in per_seed)

    def total(self, name: str) -> float:
        """Sum per seed of a number of the outcomes (states_expanded, ...) or of their usage (calls, ...)."""
        outcomes = [o for per_seed in self.outcomes for o in per_seed]
        if name in outcomes[0]:
            return sum(float(o[name]) for o in outcomes) / len(self.outcomes)
        return sum(float(usage.get(name, 0)) for o in outcomes for usage in o["usage"].values()) / len(self.outcomes)

    @property
    def model_seconds(self) -> float:
        """Seconds that models worked, per seed."""
        return sum(u.get("seconds", 0) for per_seed in self.outcomes for o in per_seed
                   for u in o["usage"].values()) / len(self.outcomes)

    @property
    def dollars(self) -> float | None:
        """Per seed; None where some price is unknown."""
        prices = [u.get("dollars", 0) for per_seed in self.outcomes for o in per_seed for u in o["usage"].values()]
        return None if None in prices else sum(prices) / len(self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "solved": float(self.solved.mean()), "n": len(self.outcomes[0]),
                "failures": self.failures}


def evaluate(program: SearchProgram, tasks: Sequence[Task], *, row: str, split: str, seeds: Sequence[int],
             folder: Path, concurrency: int = 64, in_flight: int = 32, keep_trees: bool = False,
             progress: OnProgress | None = None) -> Cell:
    """Search every task once per seed and check the answers. Judgements are never shared between puzzles.

    Finished tasks are journaled in `folder`; running again goes on from there.
    """
    state = program.dump_state()
    beam = getattr(program, "width", 1)

    def on_status(status: Status) -> None:
        if progress:
            progress(status.done, status.total, status.detail)

    results = run_sync(run_tasks(
        program, tasks, seed=seeds, concurrency=concurrency, in_flight=in_flight, keep_trees=keep_trees,
        progress=on_status, fingerprint={"program": state}, journal=folder / f"{slug(row)}-{split}-b{beam}.jsonl"))
    found = iter(results)
    outcomes = [[_outcome(program, task, next(found)) for task in tasks] for _ in seeds]
    value = state["value"]
    return Cell(row, split, beam, program.information, state["policy"].get("lm") or state["policy"]["kind"],
                value.get("lm") or value["kind"], value.get("samples", 1), list(seeds), outcomes)


def _outcome(program: SearchProgram, task: Task, result: TaskResult) -> dict[str, Any]:
    solved = result.answer is not None and program.environment.score(task, result.answer) == 1.0
    return {"task": task.id, "solved": solved, "answer": result.answer, "error": result.error,
            "states_expanded": result.states_expanded, "states_judged": result.states_judged,
            "seconds": round(result.seconds, 3),
            "usage": {role: {name: round(count, 4) if name == "seconds" else count
                             for name, count in usage.items() if count != 0} for role, usage in result.usage.items()}}


def slug(text: str) -> str:
    """`text` as a file name."""
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")
