"""The rows that need no training, evaluated by a second process while the first one tunes the value model."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.game24.programs import environment, untrained_rows
from experiments.game24.rows import Table
from experiments.game24.settings import Settings
from experiments.kit.progress import Bars, quiet_console


class Baselines:
    """A context manager. The second process writes the same journals that the first one then reads.

    Where `use` is false nothing is started, and the first process evaluates these rows itself.
    """

    def __init__(self, use: bool, settings: Settings, folder: Path, beams: Sequence[int], seeds: Sequence[int],
                 limit: int | None):
        spawn = multiprocessing.get_context("spawn")
        self._process = spawn.Process(target=_work, daemon=True, args=(
            settings, folder, list(beams), list(seeds), limit, os.getpid())) if use else None

    def __enter__(self) -> Baselines:
        if self._process:
            self._process.start()
        return self

    def wait(self) -> None:
        """Until the process has ended. What it may have left undone is then done by whoever evaluates the rows."""
        if self._process:
            self._process.join()

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.join()


def _work(settings: Settings, folder: Path, beams: list[int], seeds: list[int], limit: int | None, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    env = environment(settings)
    with Bars(quiet_console()) as bars:
        table = Table(settings, env, folder, bars, seeds, limit)
        for row, value in untrained_rows(settings, env):
            for beam in beams:
                table.add(row, value, "test", beam)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)
