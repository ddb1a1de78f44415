"""The rows of the Game-of-24 table: evaluated, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.game24.programs import search
from experiments.game24.settings import Settings
from experiments.kit.evaluation import Cell, evaluate, journal_of
from experiments.kit.progress import Bars
from stl_programs import GameOf24, Value
from stl_programs.costs import Bill, bills_of
from stl_programs.engine import read_journal


class Table:
    """Evaluates rows of a table; keeps their cells and what they cost."""

    def __init__(self, settings: Settings, env: GameOf24, folder: Path, bars: Bars, seeds: Sequence[int],
                 limit: int | None = None):
        self.settings, self.env, self.folder, self.bars, self.seeds = settings, env, folder, bars, list(seeds)
        self.limit = limit
        self.cells: list[Cell] = []
        self.bills: list[Bill] = []

    def add(self, row: str, value: Any, split: str, beam: int, policy: str | None = None,
            seeds: Sequence[int] | None = None) -> Cell:
        program, tasks = search(self.settings, self.env, value, beam, policy), self.env.tasks(split)[:self.limit]
        seeds, setting = seeds or self.seeds, {"beam": beam}
        stage = f"{row}, {split}, beam {beam}"
        self.bars.show(stage, 0, len(seeds) * len(tasks))
        cell = evaluate(
            program, tasks, row=row, split=split, setting=setting, seeds=seeds, folder=self.folder,
            concurrency=self.settings.concurrency, in_flight=self.settings.in_flight,
            progress=lambda done, total, detail: self.bars.show(stage, done, total, detail))
        self.cells.append(cell)
        wanted = {(seed, task.id) for seed in seeds for task in tasks}
        journal = read_journal(journal_of(self.folder, row, split, setting))
        found = [result for trial, result in journal.results.items() if trial in wanted]
        k = re.match(r"V(\d+)", row)
        self.bills += bills_of(found, phase="evaluation", iteration=int(k.group(1)) if k else None)
        return cell


def choose(cells: Sequence[Cell], values: Sequence[Value], names: Sequence[str]) -> int:
    """Index of the V(k) that counts as "after STL": most validation puzzles solved, the earlier one on a tie."""
    rates = [next(c for c in cells if c.row == name and c.split == "validation").success_rate for name in names]
    return max(range(len(values)), key=lambda k: (rates[k], -k))
