"""The house: imports point down and in no circle, heavy libraries load only where they are used, files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stl_programs.extras import EXTRAS
from tests.layout import PACKAGES, arrows, circles, climbing, modules

ROOT = Path(__file__).parents[1]
FILES = modules(ROOT)
HEAVY = ("torch", "transformers", "safetensors", "peft", "trl", "datasets", "mlflow", "matplotlib", "numpy", "pandas",
         "litellm", "aiohttp")
ONLY_IN = {
    "peft": {"optimizers/trainers/sft.py", "optimizers/trainers/targets.py", "stl_programs/models/local/merging.py",
             "experiments/benchmarks/training.py"},
    "trl": {"optimizers/trainers/sft.py"},
    "datasets": {"optimizers/trainers/sft.py", "stl_programs/environments/hotpotqa/questions.py"},
    "mlflow": {"experiments/kit/tracking.py"},
    "matplotlib": {"experiments/kit/figure.py"},
    "litellm": {"stl_programs/models/served/litellm_module.py"},
    "aiohttp": {"stl_programs/models/served/direct.py", "stl_programs/models/served/http.py",
                "stl_programs/models/served/sessions.py",
                "stl_programs/environments/openenv.py",
                "stl_programs/environments/webshop/server.py", "stl_programs/environments/webshop/__main__.py",
                "stl_programs/testing/simulator.py", "stl_programs/testing/service.py",
                "experiments/benchmarks/environments.py"},
}
LOCAL = ("torch", "transformers", "safetensors")
"""Below the optimizers, only models of this process need these."""


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_imports_point_down():
    found = arrows(FILES)
    assert len(found) > len(FILES), "hardly an import was found"
    assert not (wrong := climbing(found)), "\n".join(wrong)


def test_no_imports_run_in_a_circle():
    assert not (wrong := circles(arrows(FILES))), "\n".join(wrong)


@pytest.mark.parametrize(("file", "code", "arrow"), [
    ("stl_programs/engine/x.py", "from stl_programs.search.base import y", "stl_programs.search.base"),
    ("stl_programs/engine/x.py", "def f():\n    import stl_programs.search.base", "stl_programs.search.base"),
    ("stl_programs/engine/x.py", "if TYPE_CHECKING:\n    from stl_programs.search import base",
     "stl_programs.search.base"),
    ("stl_programs/engine/x.py", "from ..search import base", "stl_programs.search.base"),
    ("stl_programs/engine/x.py", "from stl_programs import BeamSearch", "stl_programs"),
    ("stl_programs/engine/x.py", "from stl_programs.engine import y", "stl_programs.engine"),
    ("stl_programs/engine/x.py", "import experiments.kit", "experiments.kit"),
    ("stl_programs/attic/x.py", "import stl_programs.errors", "stl_programs.errors"),
    ("stl_programs/models/served/x.py", "from stl_programs.models.doors import y", "stl_programs.models.doors"),
    ("stl_programs/models/local/x.py", "from stl_programs.models.registry import load", "stl_programs.models.registry"),
    ("optimizers/data/x.py", "import optimizers.stl", "optimizers.stl"),
    ("experiments/kit/x.py", "import experiments.game24", "experiments.game24"),
    ("experiments/benchmarks/x.py", "import experiments.game24", "experiments.game24")])
def test_an_import_that_climbs_is_named(tmp_path, file, code, arrow):
    for path in ("stl_programs/__init__.py", "stl_programs/errors.py", "stl_programs/engine/__init__.py",
                 "stl_programs/search/base.py", "stl_programs/models/registry.py",
                 "stl_programs/models/doors/__init__.py", "optimizers/stl.py", "experiments/kit/__init__.py",
                 "experiments/game24/__init__.py", file):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    assert not climbing(arrows(modules(tmp_path)))
    (tmp_path / file).write_text(code)
    [wrong] = climbing(arrows(modules(tmp_path)))
    assert wrong.startswith(f"{file[:-3].replace('/', '.')} -> {arrow} (")


def test_a_circle_is_named(tmp_path):
    (tmp_path / "signatures").mkdir()
    for name, code in {"a": "import signatures.b", "b": "def f():\n    from signatures import c",
                       "c": "from signatures.a import x", "d": "import signatures.a"}.items():
        (tmp_path / "signatures" / f"{name}.py").write_text(code)
    [circle] = circles(arrows(modules(tmp_path)))
    assert circle == ("signatures.a -> signatures.b; signatures.b -> signatures.c; signatures.c -> signatures.a")


def test_heavy_libraries_have_one_place():
    for module, path in FILES.items():
        place = path.relative_to(ROOT).as_posix()
        for library in imported(path) & set(ONLY_IN):
            assert place in ONLY_IN[library], f"{place} imports {library}"
        if module.startswith(("signatures", "stl_programs")) and not module.startswith("stl_programs.models.local"):
            assert not imported(path) & set(LOCAL), place


def test_no_file_outgrows_its_reader():
    for path in FILES.values():
        assert len(path.read_text().splitlines()) <= 400, path


@pytest.mark.parametrize("package", ["stl_programs", "optimizers", "signatures"])
def test_import_is_light(package):
    code = f"import {package}, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_extras_are_what_errors_say_they_bring():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def libraries(extra: str) -> set[str]:
        found = {requirement.partition(">")[0].partition("=")[0] for requirement in extras[extra]}
        inner = {name for name in found if name.startswith("stl-programs[")}
        more = [libraries(one) for name in inner for one in name.partition("[")[2].rstrip("]").split(",")]
        return (found - inner).union(*more)

    assert {extra: libraries(extra) for extra in EXTRAS} == {name: set(of) for name, of in EXTRAS.items()}
    assert libraries("all") == {library for of in EXTRAS.values() for library in of} <= libraries("dev")
    base = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    assert not base & libraries("all") and base == {"dspy", "litellm", "aiohttp", "httpx", "pydantic", "numpy",
                                                "regex", "PyStemmer", "rapidfuzz"}


def test_top_level_is_the_card():
    for name in [*PACKAGES, "tests", "pyproject.toml"]:
        assert (ROOT / name).exists()


def test_every_package_is_typed_for_others():
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
