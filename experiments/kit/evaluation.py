"""Scoring a search program: its own answer to every task, once per seed, judged after the search."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stl_programs import Environment, SearchProgram, Status, TaskResult, run_sync, run_tasks
from stl_programs.errors import StlError
from stl_programs.predictor import Predictor
from stl_programs.records import Task

OnProgress = Callable[[int, int, str], None]
Setting = Mapping[str, Any]
"""Labels, JSON-ready, that tell cells of one row and split apart: how wide, how deep, with which budget."""


@dataclass
class Cell:
    """One row of a table on one split in one setting: every seed, every task.

    `outcomes[seed][task]` is a JSON-ready dict: task, score (in [0, 1]), solved (the environment says so), answer,
    error, own_value (of the chosen state, where trees are kept), states_expanded, states_judged, seconds and usage (per
    module, zeros left out). A seed is a trial, with the answer that the program itself chose.
    """

    row: str
    split: str
    setting: dict[str, Any]
    information: str
    policy: str
    value: str
    samples: int
    seeds: list[int]
    outcomes: list[list[dict[str, Any]]]

    @property
    def place(self) -> str:
        """Split and setting as a label: `test, width 5`."""
        return place(self.split, self.setting)

    @property
    def scores(self) -> np.ndarray:
        """[seeds, tasks] in [0, 1]; a failed task counts 0."""
        return np.array([[float(o["score"]) for o in per_seed] for per_seed in self.outcomes])

    @property
    def solved(self) -> np.ndarray:
        """[seeds, tasks] of 0 and 1; a failed task counts 0."""
        return np.array([[float(o["solved"]) for o in per_seed] for per_seed in self.outcomes])

    @property
    def mean_score(self) -> float:
        return float(self.scores.mean())

    @property
    def success_rate(self) -> float:
        return float(self.solved.mean())

    @property
    def failures(self) -> int:
        """Searches, over all seeds, that ended in an error."""
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


def evaluate(program: SearchProgram, tasks: Sequence[Task], *, row: str, split: str, setting: Setting | None = None,
             seeds: Sequence[int] = (0,), folder: Path, concurrency: int = 64, in_flight: int = 32,
             keep_trees: bool = False, progress: OnProgress | None = None) -> Cell:
    """Search every task once per seed and score the answers. Judgements are never shared between tasks.

    Finished tasks are journaled in `folder` (see `journal_of`); running again goes on from there.

    Raises ValueError for no task or no seed, StlError for a score outside [0, 1].

    Example:
        >>> cell = evaluate(program, env.tasks("test"), row="base", split="test", setting={"width": 5},
        ...                 seeds=[0, 1], folder=Path("runs/mine"))
        >>> cell.mean_score, cell.success_rate, cell.failures
    """
    if not tasks or not seeds:
        raise ValueError(f"{len(tasks)} tasks and {len(seeds)} seeds: evaluate at least one of each")
    setting = dict(setting or {})

    def on_status(status: Status) -> None:
        if progress:
            progress(status.done, status.total, status.detail)

    async def work() -> list[dict[str, Any]]:
        results = await run_tasks(
            program, tasks, seed=seeds, concurrency=concurrency, in_flight=in_flight, keep_trees=keep_trees,
            progress=on_status, journal=journal_of(folder, row, split, setting))
        trials = list(zip([task for _ in seeds for task in tasks], results, strict=True))
        outcomes: list[dict[str, Any]] = []
        for start in range(0, len(trials), in_flight):  # a score may be asked of a server
            outcomes += await asyncio.gather(*(_outcome(program.environment, task, result)
                                               for task, result in trials[start:start + in_flight]))
        return outcomes

    found = run_sync(work())
    policy, value = program.policy, program.value
    return Cell(row, split, setting, program.information, asked(policy) or type(policy).__name__,
                asked(value) or type(value).__name__, getattr(value, "samples", 1), list(seeds),
                [found[i:i + len(tasks)] for i in range(0, len(found), len(tasks))])


def asked(module: Any) -> str | None:
    """The model string that a policy or value asks; None where it asks none, or several."""
    return module.predict.name if isinstance(getattr(module, "predict", None), Predictor) else None


async def _outcome(environment: Environment, task: Task, result: TaskResult) -> dict[str, Any]:
    score = 0.0 if result.answer is None else await _score(environment, task, result.answer)
    return {"task": task.id, "score": score, "solved": result.answer is not None and environment.solved(score),
            "answer": result.answer, "error": result.error, "own_value": _own_value(result),
            "states_expanded": result.states_expanded, "states_judged": result.states_judged,
            "seconds": round(result.seconds, 3),
            "usage": {role: {name: round(count, 4) if name == "seconds" else count
                             for name, count in usage.items() if count != 0} for role, usage in result.usage.items()}}


def _own_value(result: TaskResult) -> float | None:
    """What the search's value said of the state that it chose; None where trees are not kept, or it said nothing."""
    chosen = result.tree and result.tree.get("chosen")
    if result.tree is None or chosen is None:
        return None
    value = result.tree["nodes"][chosen]["value"]
    return None if value is None else value["score"]


async def _score(environment: Environment, task: Task, answer: str) -> float:
    score = float(await environment.ascore(task, answer))
    if not 0 <= score <= 1:
        raise StlError(f"{environment.name}: the score of {answer!r} for {task.id!r} is {score:g}; a score is in "
                       "[0, 1], so scale it in the environment")
    return score


def journal_of(folder: Path, row: str, split: str, setting: Setting) -> Path:
    """Where a cell's finished searches are kept."""
    return folder / f"{slug(f'{row}-{place(split, setting)}')}.jsonl"


def place(split: str, setting: Setting) -> str:
    """Split and setting as a label: `test, width 5`."""
    return ", ".join([split, *(f"{name} {label}" for name, label in setting.items())])


def slug(text: str) -> str:
    """`text` as a file name."""
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")
