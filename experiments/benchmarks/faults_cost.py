"""CPU of a model call, all that guards it included, beside version 0.3.1: the same searches, one after the other.

The goal is held with dspy's histories and traces off, of which 0.3.1 kept none; what they add is a row of its own.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from experiments.benchmarks.face import Row, at_most, median_and_spread
from stl_programs.testing.simulator import SimulatorProcess

ROOT = Path(__file__).parents[2]
BEFORE = "45fae5b"
"""The commit of version 0.3.1."""
SEARCH = Path(__file__).with_name("faults_search.py")
"""What is measured; it imports only names that both versions know."""
ROUNDS = 6


def cost() -> list[Row]:
    """CPU per call of a greedy search with a served policy and value, in processes of both versions by turns."""
    then, now, kept = [], [], []
    git = shutil.which("git") or "git"
    archive = subprocess.run([git, "archive", BEFORE], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder, SimulatorProcess(
            "stl_programs.testing.game24_script:game24_script", ["sim"]) as server:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        for _ in range(ROUNDS):
            then.append(_measured(Path(folder), server.url))
            now.append(_measured(ROOT, server.url))
            kept.append(_measured(ROOT, server.url, "--kept"))
    figure, spread = median_and_spread([a / b for a, b in zip(now, then, strict=True)])
    more, beside = median_and_spread([a / b for a, b in zip(kept, then, strict=True)])
    return [at_most("CPU of a call over that of 0.3.1", figure, 1.10, "x", spread),
            Row("the same with dspy's histories and traces, which 0.3.1 did not keep", more, "x", spread=beside),
            Row("CPU of a call", median_and_spread(now)[0], "ms", spread=median_and_spread(now)[1]),
            Row("CPU of a call, 0.3.1", median_and_spread(then)[0], "ms", spread=median_and_spread(then)[1])]


def _measured(root: Path, url: str, *flags: str) -> float:
    own = {"PYTHONPATH": str(root), "HOSTED_VLLM_API_BASE": url, "HOSTED_VLLM_API_KEY": "none",
           "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, str(SEARCH), *flags], cwd=root, env=own, capture_output=True, text=True,
                          check=True)
    return float(done.stdout.split()[-1])
