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
        self.rollouts: list[dict[str, Any]] = []
        """How many there were, and how many of them failed, by iteration."""

    @property
    def values(self) -> list[Value]:
        """V(1) ... V(n)."""
        return [program.value for program in self.programs]

    def on_start(self, optimizer: Any, program: Any) -> None:
        if self.tracker:
            self.tracker.on_start(optimizer, program)

    def on_progress(self, k: int, stage: str, done: int, total: int, detail: str = "") -> None:
        self.bars.show(f"V{k} {stage}", done, total, detail)

    def on_iteration(self, iteration: Any, program: SearchProgram) -> None:
        self.programs.append(program)
        self.bills += iteration_bills(iteration)
        failed = sum(result.error is not None for result in iteration.rollouts)
        self.rollouts.append({"row": f"V{iteration.k}", "n": len(iteration.rollouts), "failed": failed})
        [tuned] = iteration.tuned
        manifest = tuned.dataset.manifest
        self.bars.say(f"V{iteration.k}: {failed} of {len(iteration.rollouts)} rollouts failed; {manifest['rows']} rows "
                      f"of {manifest['examples']} examples, labels {manifest['labels']}, training "
                      f"{tuned.provenance['train_seconds']:g} s")
        if self.tracker:
            self.tracker.on_iteration(iteration, program)

    def on_end(self, program: Any) -> None:
        if self.tracker:
            self.tracker.on_end(program)


def compile_values(settings: Settings, env: GameOf24, run_dir: Path, seed: int, bars: Bars,
                   tracker: Any = None) -> Iterations:
    """V(1) ... V(n) of one STL seed, what they cost once, and what became of their rollouts."""
    watch = Iterations(bars, tracker)
    student = search(settings, env, base_value(settings, env), settings.width)
    optimizer(settings, env, run_dir, seed, watch).compile(student, trainset=train_tasks(settings, env, seed))
    return watch
