"""summary.json, tables and picture of an experiment, of any study; docs/summary.md documents the schema."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.kit.evaluation import Cell
from experiments.kit.figure import draw
from experiments.kit.statistics import mean_interval, paired_difference
from experiments.kit.tables import markdown
from stl_programs.costs import Bill
from stl_programs.secrets import cleaned

SCHEMA = 2
INTERVALS = {"95% interval": "percentile bootstrap over tasks and seeds, 1,000,000 draws",
             "difference": "paired: one resampled set of tasks and seeds serves both sides"}
TRIAL = "first and only; the program's own answer"
Measure = Literal["success_rate", "score"]


def summarize(cells: Sequence[Cell], *, title: str, information: str, measure: Measure = "success_rate",
              baselines: Sequence[str] = (), chosen: str | None = None, chosen_on: str | None = None,
              settings: dict[str, Any] | None = None, notes: str = "", bills: Sequence[Bill] = (),
              seconds: float = 0.0, trial: str = TRIAL, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Everything that a table shows, with every outcome of every task and seed behind it. JSON-ready.

    Args:
        cells: the rows, in the order of the table.
        title: what was measured, over the table and the picture. notes: what else a reader has to know, as sentences.
        information: what the training saw.
        measure: which of the two differences and the picture show; both stand in every row.
        baselines: names of rows that every other one of the same split and setting is compared with.
        chosen: the row that was chosen, where the study chose one; chosen_on: by which split.
        bills: what the run cost. seconds: its wall time.
        trial: which trial of a task is scored, where there are several.
        more: further keys, of the study's own.

    Example:
        >>> write(summarize([before, after], title="tree world", information="none", baselines=["before"]), run_dir)
    """
    if not cells:
        raise ValueError("no cell to report; evaluate at least one")
    return {
        "schema": SCHEMA, "date": time.strftime("%Y-%m-%d"), "seconds": round(seconds, 1),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "title": title, "notes": notes, "information": information, "settings": settings or {}, "measure": measure,
        "baselines": list(baselines), "chosen": chosen, "chosen_on": chosen_on, "trial": trial, "intervals": INTERVALS,
        **(more or {}), "costs": [bill.to_dict() for bill in bills],
        "rows": [row_summary(cell, cells, baselines) for cell in cells]}


def row_summary(cell: Cell, cells: Sequence[Cell], baselines: Sequence[str]) -> dict[str, Any]:
    """One row: score and success rate with their intervals, both against each baseline, and what a task took."""
    n = cell.scores.shape[1]
    others = {other.row: other for name in baselines for other in cells
              if other.row == name and other.place == cell.place and other is not cell}
    return {
        "row": cell.row, "split": cell.split, "setting": cell.setting, "information": cell.information,
        "policy": cell.policy, "value": cell.value, "samples": cell.samples, "seeds": cell.seeds, "n": n,
        "failures": cell.failures,
        **_intervals(cell), "minus": {name: _differences(cell, other) for name, other in others.items()},
        "per_task": {name: round(cell.total(name) / n, 3)
                     for name in ("states_expanded", "states_judged", "steps", "calls", "samples", "prompt_tokens",
                                  "completion_tokens")},
        "model_seconds": round(cell.model_seconds, 2), "dollars": cell.dollars,
        "missing": {name: cell.total(name) for name in ("parse_failures", "out_of_range")},
        "outcomes": cell.outcomes}


def _intervals(cell: Cell) -> dict[str, Any]:
    """Of both measures; computed once where every score is 0 or 1, so that they are the same."""
    score = mean_interval(cell.scores).to_dict()
    return {"score": score, "success_rate": score if _alike(cell) else mean_interval(cell.solved).to_dict()}


def _differences(cell: Cell, other: Cell) -> dict[str, Any]:
    score = paired_difference(*paired(cell.scores, other.scores)).to_dict()
    alike = _alike(cell) and _alike(other)
    return {"score": score, "success_rate": score if alike else
            paired_difference(*paired(cell.solved, other.solved)).to_dict()}


def _alike(cell: Cell) -> bool:
    return np.array_equal(cell.scores, cell.solved)


def paired(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeat the side with fewer seeds (a baseline has one model, ours one per training seed) so that seeds pair up."""
    seeds = max(len(ours), len(theirs))
    return np.resize(ours, (seeds, ours.shape[1])), np.resize(theirs, (seeds, theirs.shape[1]))


def write(summary: dict[str, Any], run_dir: Path) -> list[Path]:
    """summary.json, table.md and figure.png in `run_dir`; their paths."""
    run_dir.mkdir(parents=True, exist_ok=True)
    summary = cleaned(summary)
    files = [run_dir / "summary.json", run_dir / "table.md", run_dir / "figure.png"]
    partial = files[0].with_suffix(".partial")
    partial.write_text("".join(_json(summary)), encoding="utf-8")
    partial.replace(files[0])
    files[1].write_text(markdown(summary), encoding="utf-8")
    draw(summary, files[2])
    return files


def read(run_dir: Path) -> dict[str, Any]:
    """What `write` wrote. Raises ValueError for a summary of another schema."""
    file = run_dir / "summary.json"
    summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if summary.get("schema") != SCHEMA:
        raise ValueError(f"{file} has schema {summary.get('schema')}; this version reads {SCHEMA}: run the study again")
    return summary


def _json(summary: dict[str, Any]) -> Iterator[str]:
    """Indented down to the outcomes, which take a line a seed."""
    head = json.dumps({**summary, "rows": []}, indent=1, allow_nan=False)
    yield head.removesuffix("[]\n}") + "[\n"
    for i, row in enumerate(summary["rows"]):
        seeds = ",\n".join(json.dumps(per_seed, separators=(",", ":"), allow_nan=False) for per_seed in row["outcomes"])
        yield json.dumps({**row, "outcomes": []}, indent=1, allow_nan=False).removesuffix("[]\n}") + f"[\n{seeds}]\n}}"
        yield ",\n" if i < len(summary["rows"]) - 1 else "\n"
    yield "]\n}\n"
