"""The house: imports point down, heavy libraries load only where they are used, files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["signatures", "stl_programs", "optimizers", "experiments"]
"""From the lowest to the highest: a room imports itself and those before it."""
ONLY_IN = {
    "peft": {"optimizers/trainers/sft.py", "stl_programs/models/local/merging.py",
             "experiments/benchmarks/training.py"},
    "trl": {"optimizers/trainers/sft.py"},
    "mlflow": {"experiments/kit/tracking.py"},
    "litellm": {"stl_programs/models/doors/litellm_providers.py"},
    "aiohttp": {"stl_programs/models/served/direct.py", "stl_programs/testing/simulator.py",
                "stl_programs/testing/service.py"},
}


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    above = set(ROOMS[ROOMS.index(room) + 1:])
    assert files(room)
    for path in files(room):
        assert not imported(path) & above, path


def test_heavy_libraries_have_one_place():
    for room in ROOMS:
        for path in files(room):
            for library in imported(path) & set(ONLY_IN):
                assert str(path.relative_to(ROOT)) in ONLY_IN[library], f"{path} imports {library}"


def test_no_file_outgrows_its_reader():
    for room in ROOMS:
        for path in files(room):
            assert len(path.read_text().splitlines()) <= 400, path


@pytest.mark.parametrize("package", ["stl_programs", "optimizers", "signatures"])
def test_import_is_light(package):
    heavy = ("torch", "litellm", "transformers", "mlflow")
    code = f"import {package}, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_top_level_is_the_card():
    for name in [*ROOMS, "tests", "pyproject.toml"]:
        assert (ROOT / name).exists()
