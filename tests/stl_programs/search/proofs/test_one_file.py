"""Adding a method touches its file and its test: everything else finds it."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optimizers import WeightOptimizer
from stl_programs import BasePolicy, LegalMoves, SearchProgram, Uniform, run_sync, run_tasks
from stl_programs.engine import Executor
from stl_programs.errors import StlError
from stl_programs.saving import Saved
from tests.layout import PACKAGES, arrows, circles, climbing, modules
from tests.stl_programs.environments.own_worlds.puzzle import Puzzle

ROOT = Path(__file__).parents[4]
SEARCH = '''\
"""A walk at random, which is no method at all."""

from stl_programs import engine
from stl_programs.search.base import SearchProgram


class RandomWalk(SearchProgram):
    """Take any action, `steps` times at most.

    Example:
        >>> RandomWalk(env, LegalMoves(), Uniform(), steps=3)(task="123_46758")
    """

    settings = ("steps",)

    def __init__(self, environment, policy, value, *, steps=3, **options):
        super().__init__(environment, policy, value, **options)
        self.steps = steps

    async def grow(self, tree):
        node = tree.root
        for step in range(self.steps):
            if not (children := await self.expand(tree, node)):
                return
            node = engine.context().random("walk", step).choice(children)
            node.kept = True
'''
POLICY = '''\
"""Moves in the order of the alphabet."""

from stl_programs.policies.base import BasePolicy
from stl_programs.policies.legal import LegalMoves


class Alphabetical(BasePolicy):
    """Every legal action, sorted; at most `most`."""

    settings = ("most",)

    def __init__(self, most=2):
        super().__init__()
        self.most = most

    async def aforward(self, situation, count=None, exclude=(), draw=0):
        found = await LegalMoves().aforward(situation, count, exclude, draw)
        return sorted(found, key=lambda one: one.action.text)[:self.most]
'''
OPTIMIZER = '''\
"""Rows of every state that was expanded, whatever came of it."""

from optimizers.data.rows import Dataset
from optimizers.loop import WeightOptimizer


class EveryState(WeightOptimizer):
    """A data step and the shared trainer."""

    def tunes(self, student):
        return student.value.predict

    def datasets(self, student, rollouts, k):
        return {None: Dataset([], [], [])}

    def with_adapters(self, student, tuned):
        return student.deepcopy()
'''
EXECUTOR = '''\
"""The last trial first."""

from stl_programs.engine.local import LocalExecutor


class LastFirst(LocalExecutor):
    """As in this process, from the end."""

    kind = "last_first"

    async def run(self, job):
        job.todo.reverse()
        await super().run(job)
'''
FILES = {"stl_programs/search/random_walk.py": SEARCH, "stl_programs/policies/alphabetical.py": POLICY,
         "optimizers/every_state.py": OPTIMIZER, "stl_programs/engine/last_first.py": EXECUTOR}


@pytest.fixture
def methods(tmp_path, monkeypatch):
    """The four files in a folder of a user's, imported; what they registered is forgotten afterwards."""
    kept = [(kinds, dict(kinds)) for kinds in (Saved.kinds, WeightOptimizer.kinds, Executor.kinds)]
    monkeypatch.syspath_prepend(tmp_path)
    for path, code in FILES.items():
        (tmp_path / f"mine_{Path(path).name}").write_text(code)
    yield {Path(path).stem: importlib.import_module(f"mine_{Path(path).stem}") for path in FILES}
    for path in FILES:
        sys.modules.pop(f"mine_{Path(path).stem}", None)
    for kinds, before in kept:
        kinds.clear()
        kinds.update(before)


def test_it_is_known_by_being_imported(methods):
    assert Saved.kinds["RandomWalk"] is methods["random_walk"].RandomWalk
    assert Saved.kinds["Alphabetical"] is methods["alphabetical"].Alphabetical
    assert WeightOptimizer.kinds["EveryState"] is methods["every_state"].EveryState
    assert Executor.kinds["last_first"] is methods["last_first"].LastFirst
    assert issubclass(Saved.kinds["RandomWalk"], SearchProgram) and issubclass(Saved.kinds["Alphabetical"], BasePolicy)


def test_it_runs_is_saved_and_is_loaded_by_its_kind(methods, tmp_path):
    env = Puzzle()
    search = methods["random_walk"].RandomWalk(env, methods["alphabetical"].Alphabetical(most=1), Uniform(), steps=2,
                                               seed=4)
    results = run_sync(run_tasks(search, env.tasks("test"), executor="last_first"))
    assert [result.error for result in results] == [None] * 5
    assert all(len(result.trajectory) <= 2 for result in results) and any(result.trajectory for result in results)
    search.save(tmp_path / "program.json")
    loaded = methods["random_walk"].RandomWalk(env, LegalMoves(), Uniform())
    loaded.load(tmp_path / "program.json")
    assert (loaded.steps, loaded.seed, loaded.policy.most) == (2, 4, 1)
    assert type(loaded.policy).__name__ == "Alphabetical", "a policy of another kind was built by its own"
    assert run_sync(run_tasks(loaded, env.tasks("test")))[0].answer == results[0].answer


def test_where_its_file_was_not_imported_the_program_says_so(methods, tmp_path):
    search = methods["random_walk"].RandomWalk(Puzzle(), methods["alphabetical"].Alphabetical(), Uniform())
    search.save(tmp_path / "program.json")
    del Saved.kinds["Alphabetical"]
    with pytest.raises(StlError, match=r"holds a 'Alphabetical', and no such class is imported; import the module"):
        methods["random_walk"].RandomWalk(Puzzle(), LegalMoves(), Uniform()).load(tmp_path / "program.json")
    assert json.loads((tmp_path / "program.json").read_text())["parts"]["policy"]["kind"] == "Alphabetical"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the project in which the four files stand in their rooms, and nothing else was touched."""
    copy = tmp_path_factory.mktemp("house")
    for package in (*PACKAGES, "docs"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns(
            "__pycache__", "*.safetensors", "results", "*.png"))
    for path, code in FILES.items():
        (copy / path).write_text(code)
    return copy


def run(house, code):
    done = subprocess.run([sys.executable, "-c", code], cwd=house, capture_output=True, text=True, check=False,
                          env={"PYTHONPATH": f"{house}:{house / 'docs'}", "PATH": ""})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_its_room_it_fits_the_house(house):
    files = modules(house)
    assert {path.removesuffix(".py").replace("/", ".") for path in FILES} <= set(files)
    assert not climbing(arrows(files)) and not circles(arrows(files))


def test_in_its_room_it_is_on_the_file_map(house):
    lines = run(house, "import reference; print(reference.file_map())").splitlines()
    for path, code in FILES.items():
        [line] = [line for line in lines if line.startswith(f"| `{Path(path).name}` |")]
        assert code.splitlines()[0].strip('"') in line


def test_in_its_room_it_is_used_as_the_others_are(house):
    said = run(house, "from stl_programs import GameOf24, LegalMoves, Uniform, run_sync, run_tasks\n"
                      "from stl_programs.search.random_walk import RandomWalk\n"
                      "from optimizers.every_state import EveryState\n"
                      "env = GameOf24()\n"
                      "search = RandomWalk(env, LegalMoves(), Uniform(), steps=3)\n"
                      "search.save('program.json')\n"
                      "search.load('program.json')\n"
                      "[result] = run_sync(run_tasks(search, ['4 5 6 10'], executor='last_first'))\n"
                      "print(len(result.trajectory), result.error, sorted(EveryState.kinds))")
    assert said.startswith("3 None") and "EveryState" in said
