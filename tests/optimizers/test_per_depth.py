"""One adapter per depth, each judging the states of its own depth."""

from __future__ import annotations

import json

import pytest

from optimizers import LoraSettings, SelfTaughtLookahead
from stl_programs import BeamSearch, LegalMoves, PerDepth, Uniform, Value
from stl_programs.errors import StlError

QUICK = LoraSettings(epochs=1, learning_rate=3e-3, batch_size=16, max_length=64)


def program(env):
    return BeamSearch(env, LegalMoves(), Value(env.value_signature, "embedded/game24", samples=2), width=2)


@pytest.fixture(scope="module")
def compiled(env, tmp_path_factory):
    folder, seen = tmp_path_factory.mktemp("per-depth"), []

    class Watch:
        def on_start(self, *_): ...
        def on_progress(self, *_): ...
        def on_end(self, *_): ...

        def on_iteration(self, iteration, program):
            seen.append(iteration)

    stl = SelfTaughtLookahead(iterations=2, tasks_per_iteration=3, run_dir=folder, lora=QUICK, per_depth=True,
                              callback=Watch())
    return stl.compile(program(env), trainset=env.tasks("train")), folder, seen


def test_every_depth_has_its_own_adapter_and_rows(compiled):
    tuned, folder, seen = compiled
    assert isinstance(tuned.value, PerDepth)
    names = [value.lm for value in tuned.value.values]
    versions = [name.partition("@")[2].rpartition("-")[0] for name in names]
    assert versions == ["value-d1-v2", "value-d2-v2", "value-d3-v2"]
    assert [one.lm for one in seen[1].tuned] == names and [one.depth for one in seen[1].tuned] == [1, 2, 3]
    for one in seen[1].tuned:
        depths = {int(depth) for depth in one.dataset.manifest["depths"]}
        assert depths <= ({0, 1} if one.depth == 1 else {one.depth})
        assert json.loads((folder / f"adapter-2-d{one.depth}" / "provenance.json").read_text())["depth"] == one.depth


def test_a_search_asks_the_adapter_of_the_depth(compiled):
    tuned, _, _ = compiled
    assert tuned(task="4 5 6 10").answer
    assert {model.name for model in tuned.models()} == {value.lm for value in tuned.value.values}


def test_it_is_saved_with_all_its_adapters(env, compiled, tmp_path):
    tuned, _, _ = compiled
    tuned.save(tmp_path / "program.json")
    loaded = BeamSearch(env, LegalMoves(), Uniform())
    loaded.load(tmp_path / "program.json")
    assert [value.lm for value in loaded.value.values] == [value.lm for value in tuned.value.values]
    assert loaded(task="4 5 6 10").answer == tuned(task="4 5 6 10").answer


def test_a_depth_without_rows_is_named(env, tmp_path):
    stl = SelfTaughtLookahead(tasks_per_iteration=3, run_dir=tmp_path, lora=QUICK, per_depth=True,
                              filters={"late": lambda e, score: "too late" if e.depth == 2 else None})
    with pytest.raises(StlError, match="depth 2: no training row is left"):
        stl.compile(program(env), trainset=env.tasks("train"))
