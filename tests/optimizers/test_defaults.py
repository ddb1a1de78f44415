"""Training settings that nobody passed come from the model directory, else from the paper; what is passed wins."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from optimizers import LoraSettings, SelfTaughtLookahead
from optimizers.defaults import StlSettings, lora_settings, stl_settings
from stl_programs import BeamSearch, LegalMoves, Value, models
from stl_programs.errors import ModelError, StlError
from stl_programs.testing.scripted import ScriptedModel

EMBEDDED = models.EMBEDDED / "game24"
BROUGHT = json.loads((EMBEDDED / "stl_programs.json").read_text())["training"]


def student(env, lm="embedded/game24"):
    return BeamSearch(env, LegalMoves(), Value(env.value_signature, lm, samples=2), width=2)


def directory(folder: Path, brought: object | None) -> Path:
    """A copy of the embedded model that brings something else."""
    shutil.copytree(EMBEDDED, folder)
    (folder / "stl_programs.json").unlink()
    if brought is not None:
        (folder / "stl_programs.json").write_text(brought if isinstance(brought, str) else json.dumps(brought))
    return folder


def test_the_embedded_model_brings_its_settings(env):
    stl = SelfTaughtLookahead()
    stl.check(student(env), ["4 5 6 10"])
    assert BROUGHT["stl"]["expand"] == "all" and BROUGHT["lora"]["learning_rate"] > 1e-3
    assert stl.settings().items() >= BROUGHT["stl"].items()
    assert stl.settings()["lora"] == asdict(LoraSettings()) | BROUGHT["lora"]


def test_a_directory_that_brings_nothing_leaves_the_papers(tmp_path):
    bare = directory(tmp_path / "bare", {"prompt_format": "compact"})
    assert (stl_settings(bare), lora_settings(bare)) == (StlSettings(), LoraSettings())
    (bare / "stl_programs.json").unlink()
    assert (stl_settings(bare), lora_settings(bare)) == (StlSettings(), LoraSettings())
    assert StlSettings() == StlSettings("median", None, "kept", "all")


def test_what_is_passed_wins(env):
    stl = SelfTaughtLookahead(rollout_aggregate="median", rollout_samples=1, others_per_top="all",
                              lora=LoraSettings(epochs=1))
    stl.check(student(env), ["4 5 6 10"])
    found = stl.settings()
    assert (found["rollout_aggregate"], found["rollout_samples"], found["others_per_top"]) == ("median", 1, "all")
    assert found["expand"] == "all" and found["lora"] == asdict(LoraSettings(epochs=1))


def test_the_directory_of_a_served_models_weights_counts(env, tmp_path):
    folder = directory(tmp_path / "mine", {"training": {"stl": {"others_per_top": 2}, "lora": {"rank": 4}}})
    stl = SelfTaughtLookahead(weights=folder)
    served = ScriptedModel("scripted/any", lambda *_: "impossible")
    stl.check(student(env, served), ["4 5 6 10"])
    found = stl.settings()
    assert (found["others_per_top"], found["rollout_aggregate"], found["rollout_samples"]) == (2, "median", 2)
    assert found["lora"] == asdict(LoraSettings(rank=4))


def test_settings_are_resolved_anew_for_every_program(env, tmp_path):
    stl = SelfTaughtLookahead()
    assert stl.settings()["expand"] is None and stl.settings()["lora"] is None
    with pytest.raises(StlError, match="call check"):
        _ = stl.resolved
    stl.check(student(env), ["4 5 6 10"])
    assert stl.settings()["expand"] == "all"
    stl.check(student(env, f"local/{directory(tmp_path / 'bare', {'prompt_format': 'compact'})}"), ["4 5 6 10"])
    assert stl.settings()["expand"] == "kept" and stl.settings()["lora"] == asdict(LoraSettings())


def test_a_run_records_what_it_used(env, tmp_path):
    quick = {"learning_rate": 3e-3, "epochs": 1, "batch_size": 64, "rank": 2}
    folder = directory(tmp_path / "quick", {"prompt_format": "compact", "training": {
        "stl": {"rollout_aggregate": "max", "expand": "all", "others_per_top": 1}, "lora": quick}})
    SelfTaughtLookahead(tasks_per_iteration=2, run_dir=tmp_path / "run").compile(
        student(env, f"local/{folder}"), trainset=env.tasks("train"))
    record = json.loads((tmp_path / "run" / "adapter-1" / "provenance.json").read_text())
    assert record["stl"] == {"rollout_aggregate": "max", "rollout_samples": 2, "expand": "all", "others_per_top": 1}
    assert record["settings"] == asdict(LoraSettings()) | quick
    header = json.loads((tmp_path / "run" / "rollouts-1.jsonl").read_text().splitlines()[0])
    program = header["fingerprint"]["program"]
    assert program["settings"]["expand_what"] == "all" and program["parts"]["value"]["settings"]["aggregate"] == "max"


@pytest.mark.parametrize(("training", "why"), [
    ({"lora": {"learning_rat": 1}}, r"training\.lora\.learning_rat is unknown; write rank, alpha, learning_rate, "),
    ({"lora": {"epochs": "6"}}, r"training\.lora: LoraSettings\(epochs='6'\): it should be a valid number"),
    ({"lora": {"rank": 2.5}}, r"training\.lora: LoraSettings\(rank=2\.5\): it should be a valid integer"),
    ({"lora": {"rank": True}}, r"training\.lora: LoraSettings\(rank=True\): it should be a valid integer"),
    ({"lora": {"loss": "both"}}, r"training\.lora: .*loss='both'\): it should be 'output' or 'input\+output'"),
    ({"lora": {"batch_size": 0}}, r"training\.lora: .*batch_size=0\): it should be greater than or equal to 1"),
    ({"lora": [1]}, r"training\.lora is \[1\]; write an object"),
    ({"stl": {"expand": "some"}}, r"training\.stl: .*expand='some'\): it should be 'kept' or 'all'"),
    ({"stl": {"rollout_samples": 0}}, r"training\.stl: .*rollout_samples=0\): it should be greater than or equal to 1"),
    ({"stl": {"others_per_top": -1}}, r"training\.stl: .*others_per_top=-1\): .* or .all.$"),
    ({"stl": {"iterations": 2}}, r"training\.stl\.iterations is unknown; write rollout_aggregate, "),
    ({"sft": {}}, r"training\.sft is unknown; write lora or stl"),
    ([], r"training is a list of 0: input should be a valid dictionary")])
def test_a_bad_file_is_one_clear_error(env, tmp_path, training, why):
    folder = directory(tmp_path / "bad", {"training": training})
    stl = SelfTaughtLookahead(weights=folder, run_dir=tmp_path / "run")
    with pytest.raises(ModelError, match=rf"stl_programs\.json: {why}"):
        stl.compile(student(env), trainset=["4 5 6 10"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "why"), [
    ("{", "is not an object"), ("[1]", "it is a list of 1"), ('{"trainin": {}}', "'trainin' is unknown"),
    ('{"prompt_format": 3}', "prompt_format is 3: input should be a valid string")])
def test_a_file_that_is_none_is_one_clear_error(tmp_path, text, why):
    folder = directory(tmp_path / "bad", text)
    with pytest.raises(ModelError, match=rf"stl_programs\.json.*{why}"):
        models.load(f"local/{folder}")


@pytest.mark.parametrize(("options", "why"), [
    ({"rollout_aggregate": "least"}, r"rollout_aggregate='least'\): it should be 'median', 'mean' or 'max'"),
    ({"expand": "none"}, "expand='none'"), ({"others_per_top": -0.5}, "others_per_top=-0.5"),
    ({"rollout_samples": 0}, "rollout_samples=0")])
def test_bad_settings_fail_where_they_are_passed(options, why):
    with pytest.raises(ValueError, match=why):
        SelfTaughtLookahead(**options)
