"""Real rollouts, a real TRL/PEFT training and a real adapter, small."""

from __future__ import annotations

import json
import shutil

import pytest

from optimizers import LoraSettings, SelfTaughtLookahead
from optimizers.data.lookahead import LookaheadExample
from optimizers.data.rows import build_dataset
from optimizers.trainers.sft import train_adapter
from signatures.game24 import SCALE, LookaheadNumbers
from stl_programs import BeamSearch, LegalMoves, Oracle, Uniform, Value, models
from stl_programs.errors import AdapterError, ModelError, StlError
from stl_programs.models.formats import CompactFormat

EMBEDDED = models.EMBEDDED / "game24"
QUICK = LoraSettings(epochs=2, learning_rate=3e-3, batch_size=16, max_length=64)


def program(env, **options):
    return BeamSearch(env, LegalMoves(), Value(env.value_signature, "embedded/game24", samples=2), width=2, **options)


class Watch:
    def __init__(self):
        self.events = []

    def on_start(self, optimizer, program):
        self.events.append("start")

    def on_progress(self, k, stage, done, total, detail=""):
        if done == total:
            self.events.append((k, stage))

    def on_iteration(self, iteration, program):
        self.events.append((iteration.k, program.value.lm))

    def on_end(self, program):
        self.events.append("end")


@pytest.fixture(scope="module")
def compiled(env, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("stl")
    watch = Watch()
    stl = SelfTaughtLookahead(iterations=2, tasks_per_iteration=3, run_dir=run_dir, lora=QUICK, callback=watch,
                              rollout_aggregate="max")
    student = program(env)
    return student, stl.compile(student, trainset=env.tasks("train")), run_dir, watch


def test_compile_returns_a_new_program_and_leaves_the_student_alone(compiled):
    student, tuned, _, _ = compiled
    assert student.value.lm == "embedded/game24" and "best_action" not in student.value.predict.signature.output_fields
    assert tuned.value.lm.startswith("embedded/game24@value-v2-")
    assert "best_action" in tuned.value.predict.signature.output_fields
    assert (tuned.width, tuned.value.samples, tuned.value.aggregate) == (2, 2, "median")
    assert tuned(task="4 5 6 10").answer


def test_the_stages_come_in_the_order_of_algorithm_1(compiled):
    events = list(dict.fromkeys(
        event for event in compiled[3].events if not (isinstance(event, tuple) and "@" in event[1])))
    assert events == ["start", (1, "rollouts"), (1, "training"), (2, "rollouts"), (2, "training"), "end"]


def test_adapters_are_safetensors_with_their_provenance(compiled):
    _, _, run_dir, _ = compiled
    names = {path.name for path in (run_dir / "adapter-2").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "provenance.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    record = json.loads((run_dir / "adapter-2" / "provenance.json").read_text())
    manifest = json.loads((run_dir / "data-2" / "manifest.json").read_text())
    assert record["data_sha256"] == manifest["sha256"] and record["signature"] == manifest["signature"]
    assert record["settings"]["learning_rate"] == 3e-3 and record["libraries"]["trl"] and len(record["losses"]) >= 1
    assert set(record) >= {"base", "base_sha256", "seed", "iteration", "variant", "format", "train_seconds"}


def test_a_finished_compile_is_not_paid_for_twice(env, compiled):
    _, tuned, run_dir, _ = compiled
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.safetensors")}
    again = SelfTaughtLookahead(iterations=2, tasks_per_iteration=3, run_dir=run_dir, lora=QUICK,
                                rollout_aggregate="max").compile(program(env), trainset=env.tasks("train"))
    assert again.value.lm == tuned.value.lm
    assert before == {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.safetensors")}


def test_a_run_directory_of_other_settings_is_refused(env, compiled):
    stl = SelfTaughtLookahead(iterations=1, tasks_per_iteration=3, run_dir=compiled[2], rollout_aggregate="max",
                              lora=LoraSettings(epochs=1))
    with pytest.raises(AdapterError, match="another training"):
        stl.compile(program(env), trainset=env.tasks("train"))


def test_a_saved_program_carries_its_adapter(env, compiled, tmp_path):
    _, tuned, _, _ = compiled
    tuned.save(tmp_path / "game24-stl.json")
    loaded = BeamSearch(env, LegalMoves(), Uniform())
    loaded.load(tmp_path / "game24-stl.json")
    assert loaded.value.lm == tuned.value.lm
    assert loaded(task="4 5 6 10").answer == tuned(task="4 5 6 10").answer
    weights = next(tmp_path.rglob("adapter_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(AdapterError, match="was changed"):
        loaded.load(tmp_path / "game24-stl.json")
    shutil.rmtree(weights.parent)
    with pytest.raises(AdapterError, match="is gone"):
        loaded.load(tmp_path / "game24-stl.json")


def dataset(text="4 * 6 = 24 -> 24 . end | sure"):
    example = LookaheadExample("1 4 4 6", "4 6", "4 6", "", 2, "4 * 6 = 24", "24", "24", "end", 20.0)
    return build_dataset([example], LookaheadNumbers, CompactFormat(), SCALE, validation_share=0)


def test_training_makes_the_trained_answer_likely(tmp_path):
    settings = LoraSettings(epochs=60, learning_rate=3e-3, batch_size=1, max_length=64, warmup_steps=1)
    record = train_adapter(dataset(), EMBEDDED, tmp_path / "adapter", settings)
    assert record["losses"][-1] < record["losses"][0] / 3
    assert not list(tmp_path.glob("*.partial*"))


def test_a_training_cut_short_leaves_no_adapter(tmp_path):
    def stop(step, steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(dataset(), EMBEDDED, tmp_path / "adapter", QUICK, progress=stop)
    assert not (tmp_path / "adapter").exists()
    assert train_adapter(dataset(), EMBEDDED, tmp_path / "adapter", QUICK)["steps"] == 2


def test_continuing_starts_from_the_previous_adapter(tmp_path):
    first = train_adapter(dataset(), EMBEDDED, tmp_path / "one", QUICK)
    second = train_adapter(dataset(), EMBEDDED, tmp_path / "two", QUICK, continue_from=tmp_path / "one")
    assert second["continue_from"] and second["losses"][0] < first["losses"][0]


def test_loss_on_input_and_output_counts_more_tokens(tmp_path):
    both = LoraSettings(epochs=1, batch_size=1, max_length=64, loss="input+output")
    only = LoraSettings(epochs=1, batch_size=1, max_length=64)
    losses = [train_adapter(dataset(), EMBEDDED, tmp_path / s.loss, s)["losses"][0] for s in (both, only)]
    assert losses[0] > losses[1]


@pytest.mark.parametrize(("options", "why"), [
    ({"iterations": 0}, "iterations=0"), ({"start": "again"}, "start='again'"), ({"gamma": 2}, "gamma=2"),
    ({"tasks_per_iteration": 0}, "tasks_per_iteration=0")])
def test_bad_settings(options, why):
    with pytest.raises(ValueError, match=why):
        SelfTaughtLookahead(**options)


def test_what_cannot_be_tuned_fails_before_any_work(env, tmp_path):
    stl = SelfTaughtLookahead(run_dir=tmp_path / "run")
    with pytest.raises(StlError, match="training set is empty"):
        stl.compile(program(env), trainset=[])
    with pytest.raises(ModelError, match="value is Oracle"):
        stl.compile(BeamSearch(env, LegalMoves(), Oracle()), trainset=env.tasks("train"))
    with pytest.raises(ModelError, match="cannot be tuned from here"):
        stl.compile(BeamSearch(env, LegalMoves(), Value(env.value_signature, "openai/gpt-4o")), trainset=["4 5 6 10"])
    with pytest.raises(ModelError, match=r"no config\.json"):
        SelfTaughtLookahead(weights=tmp_path).compile(program(env), trainset=["4 5 6 10"])
    assert not (tmp_path / "run").exists()


def test_rollouts_that_failed_are_said_and_the_others_train(env, tmp_path):
    class Fails(LegalMoves):
        async def aforward(self, situation, count=None, exclude=(), draw=0):
            if situation.task.text == bad.text:
                raise OSError("the shop is closed")
            return await super().aforward(situation, count, exclude, draw)

    bad, *good = env.tasks("train")[:3]
    student = BeamSearch(env, Fails(), Value(env.value_signature, "embedded/game24", samples=2), width=2)
    stl = SelfTaughtLookahead(tasks_per_iteration=3, run_dir=tmp_path, lora=QUICK, rollout_aggregate="max")
    said = r"iteration 1: 1 of 3 rollouts failed and train nothing; the first: OSError: the shop is closed \(test_stl"
    with pytest.warns(RuntimeWarning, match=said):
        assert stl.compile(student, trainset=[bad, *good]).value.predict.adapter


@pytest.mark.parametrize(("field", "value"), [("loss", "both"), ("rank", 0), ("learning_rate", -1.0)])
def test_bad_training_settings(field, value):
    with pytest.raises(ValueError, match=field):
        LoraSettings(**{field: value})
