"""V(1) ... V(n) of one STL seed, with progress, tracking and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.game24.programs import base_value, optimizer, search, train_tasks
from experiments.game24.settings import Settings
from experiments.kit.progress import Bars
from experiments.kit.tracking import iteration_bills
from stl_programs import GameOf24, SearchProgram, Value
from stl_programs.costs import Bill


class Iterations:
    """A compile's callback: keeps every iteration's program and costs, shows progress, passes all on to a tracker."""

    def __init__(self, bars: Bars, tracker: Any = None):
        self.bars, self.tracker = bars, tracker
        self.programs: list[SearchProgram] = []
        self.bills: list[Bill] = []

    def on_start(self, optimizer: Any, program: Any) -> None:
        if self.tracker:
            self.tracker.on_start(optimizer, program)

    def on_progress(self, k: int, stage: str, done: int, total: int, detail: str = "") -> None:
        self.bars.show(f"V{k} {stage}", done, total, detail)

    def on_iteration(self, iteration: Any, program: SearchProgram) -> None:
        self.programs.append(program)
        self.bills += iteration_bills(iteration)
        [tuned] = iteration.tuned
        manifest = tuned.dataset.manifest
        self.bars.say(f"V{iteration.k}: {manifest['rows']} rows of {manifest['examples']} examples, labels "
                      f"{manifest['labels']}, training {tuned.provenance['train_seconds']:g} s")
        if self.tracker:
            self.tracker.on_iteration(iteration, program)

    def on_end(self, program: Any) -> None:
        if self.tracker:
            self.tracker.on_end(program)


def compile_values(settings: Settings, env: GameOf24, run_dir: Path, seed: int, bars: Bars,
                   tracker: Any = None) -> tuple[list[Value], list[Bill]]:
    """V(1) ... V(n) of one STL seed, and what they cost once."""
    watch = Iterations(bars, tracker)
    student = search(settings, env, base_value(settings, env), settings.width)
    optimizer(settings, env, run_dir, seed, watch).compile(student, trainset=train_tasks(settings, env, seed))
    return [program.value for program in watch.programs], watch.bills
