"""A search over served models runs where torch and the like cannot be imported; what needs them says so in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stl_programs.errors import ModelError, StlError
from stl_programs.extras import EXTRAS, need

ROOT = Path(__file__).parents[2]
ABSENT = ("torch", "transformers", "safetensors", "peft", "trl", "datasets", "mlflow", "matplotlib", "numpy", "pandas",
          "rich", "accelerate", "pyarrow")

WITHOUT = f'''
import sys

class Hiding:
    """A finder of modules that knows none of the absent ones, as where they are not installed."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    sys.exit("the hook does not work")
'''


def run_without(code: str) -> str:
    """What `code` prints in a process that can import none of ABSENT."""
    done = subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_search_over_served_models_needs_none_of_them():
    printed = run_without("""
from stl_programs import GameOf24, GreedySearch, Policy, Value, lm, run_sync, run_tasks
from stl_programs.testing import ScriptedModel, Simulator
from stl_programs.testing.game24_script import game24_script

env = GameOf24()
with Simulator(game24_script, ["policy", "value"]) as server:
    models = [lm(f"hosted_vllm/{name}", api_base=server.url) for name in ("policy", "value")]
    program = GreedySearch(env, Policy(env.policy_signature, models[0]),
                           Value(env.value_signature, models[1], samples=2))
    program.check()
    [result] = run_sync(run_tasks(program, [env.task("4 5 6 10")]))
    print(result.error, len(result.trajectory), sum(usage["calls"] for usage in result.usage.values()) > 3)
scripted = ScriptedModel("scripted/player", lambda messages, seed: game24_script(messages, "", seed))
program = GreedySearch(env, Policy(env.policy_signature, scripted), Value(env.value_signature, scripted, samples=2))
print(len(program(task="4 5 6 10").trajectory))
""")
    assert printed == "None 3 True\n3\n"


def test_a_model_of_this_process_says_what_to_install_before_anything_is_asked():
    printed = run_without("""
from stl_programs import GameOf24, GreedySearch, LegalMoves, Value, lm
from stl_programs.errors import ModelError

env = GameOf24()
program = GreedySearch(env, LegalMoves(), Value(env.value_signature, "embedded/game24"))
for ask in (program.check, lambda: lm("embedded/game24"), lambda: program(task="4 5 6 10")):
    try:
        ask()
    except ModelError as error:
        print(error)
""")
    line = ("embedded/game24 needs torch, transformers, safetensors and peft: pip install 'stl-programs[local]'\n")
    assert printed == 3 * line


def test_tuning_tracking_and_reporting_say_what_to_install(tmp_path):
    printed = run_without(f"""
from pathlib import Path
from optimizers import SelfTaughtLookahead
from stl_programs import GameOf24, GreedySearch, LegalMoves, Value
from stl_programs.costs import table
from stl_programs.errors import StlError
from stl_programs.models import EMBEDDED
from stl_programs.testing import ScriptedModel

env = GameOf24()
def fail(*_):
    raise AssertionError("a model was asked")
program = GreedySearch(env, LegalMoves(), Value(env.value_signature, ScriptedModel("scripted/value", fail)))
optimizer = SelfTaughtLookahead(run_dir={str(tmp_path / "run")!r}, weights=EMBEDDED / "game24")
def kit():
    import experiments.kit.evaluation
for ask in (lambda: optimizer.compile(program, trainset=env.tasks("train")), lambda: table([]), kit):
    try:
        ask()
    except StlError as error:
        print(error)
""")
    training, table, kit = printed.splitlines()
    assert training.startswith("a training needs ") and training.endswith(": pip install 'stl-programs[train]'")
    assert "trl" in training and "rich: pip install 'stl-programs[report]'" in table
    assert kit == "the experiment kit needs matplotlib and rich: pip install 'stl-programs[report]'"
    assert not (tmp_path / "run").exists()


def test_what_is_installed_is_not_missed(monkeypatch):
    need("a test", *EXTRAS["train"])
    monkeypatch.setitem(EXTRAS, "local", ("torch", "no_such_library"))
    with pytest.raises(ModelError, match=r"^a test needs no_such_library: pip install 'stl-programs\[local\]'$"):
        need("a test", "torch", "no_such_library", error=ModelError)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(StlError, match=r"needs mlflow: pip install 'stl-programs\[track\]'"):
        need("a test", "mlflow")
