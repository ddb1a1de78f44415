"""What a compile did, as it goes: programs, costs and progress of every iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.kit.progress import Bars
from experiments.kit.tracking import iteration_bills
from stl_programs import SearchProgram, Value
from stl_programs.costs import Bill


class Iterations:
    """A compile's callback: keeps every iteration's program and costs, shows progress, passes all on to a tracker."""

    def __init__(self, bars: Bars, tracker: Any = None, name: Callable[[int], str] = "V{}".format):
        self.bars, self.tracker, self.name = bars, tracker, name
        self.programs: list[SearchProgram] = []
        self.bills: list[Bill] = []
        self.rollouts: list[dict[str, Any]] = []
        """How many there were, and how many of them failed, by iteration."""

    @property
    def values(self) -> list[Value]:
        """Of every iteration."""
        return [program.value for program in self.programs]

    def on_start(self, optimizer: Any, program: Any) -> None:
        if self.tracker:
            self.tracker.on_start(optimizer, program)

    def on_progress(self, k: int, stage: str, done: int, total: int, detail: str = "") -> None:
        self.bars.show(f"{self.name(k)} {stage}", done, total, detail)

    def on_iteration(self, iteration: Any, program: SearchProgram) -> None:
        self.programs.append(program)
        self.bills += iteration_bills(iteration)
        name = self.name(iteration.k)
        failed = sum(result.error is not None for result in iteration.rollouts)
        self.rollouts.append({"row": name, "n": len(iteration.rollouts), "failed": failed})
        self.bars.say(f"{name}: {failed} of {len(iteration.rollouts)} rollouts failed")
        for tuned in iteration.tuned:
            manifest, where = tuned.dataset.manifest, "" if tuned.depth is None else f", depth {tuned.depth}"
            self.bars.say(f"{name}{where}: {manifest['rows']} rows of {manifest['examples']} examples, labels "
                          f"{_brief(manifest['labels'])}, training {tuned.provenance['train_seconds']:g} s")
        if self.tracker:
            self.tracker.on_iteration(iteration, program)

    def on_end(self, program: Any) -> None:
        if self.tracker:
            self.tracker.on_end(program)


def _brief(labels: dict[str, int]) -> str:
    """All of few labels, the number of many."""
    return str(labels) if len(labels) <= 6 else f"{len(labels)} different"
