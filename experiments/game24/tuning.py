"""V(1) ... V(n) of one STL seed, with progress, tracking and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.game24.programs import base_value, optimizer, search, train_tasks
from experiments.game24.settings import Settings
from experiments.kit.progress import Bars
from experiments.kit.watching import Iterations
from stl_programs import GameOf24


def compile_values(settings: Settings, env: GameOf24, run_dir: Path, seed: int, bars: Bars,
                   tracker: Any = None) -> Iterations:
    """V(1) ... V(n) of one STL seed, what they cost once, and what became of their rollouts."""
    watch = Iterations(bars, tracker)
    student = search(settings, env, base_value(settings, env), settings.width)
    optimizer(settings, env, run_dir, seed, watch).compile(student, trainset=train_tasks(settings, env, seed))
    return watch
