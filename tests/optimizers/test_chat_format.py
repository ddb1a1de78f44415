"""The loop in the stock chat format against a served model: nothing depends on a compact format or embedded model."""

from __future__ import annotations

import json

import pytest

from optimizers import LoraSettings, SelfTaughtLookahead
from stl_programs import BeamSearch, LegalMoves, Policy, Uniform, Value, models
from stl_programs.errors import AdapterError
from stl_programs.models.served.transports import open_remote
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.simulator import Simulator

SMALL = LoraSettings(epochs=1, learning_rate=1e-3, batch_size=8, max_length=2048)


def judge(saved):
    """The predictor of the value in a saved program."""
    return saved["parts"]["value"]["parts"]["predict"]


def test_two_iterations_in_the_stock_format(env, tiny_chat_model, tmp_path):
    with Simulator(game24_script, ["player"]) as server:
        served = open_remote("hosted_vllm/player", api_base=server.url)
        policy = Policy(env.policy_signature, served, count=3, format="chat")
        program = BeamSearch(env, policy, Value(env.value_signature, served, samples=2, format="chat"), width=2)
        stl = SelfTaughtLookahead(iterations=2, tasks_per_iteration=3, run_dir=tmp_path / "run", lora=SMALL,
                                  weights=tiny_chat_model)
        tuned = stl.compile(program, trainset=env.tasks("train"))
        first = [json.loads((tmp_path / "run" / f"adapter-{k}" / "provenance.json").read_text()) for k in (1, 2)]
        assert [record["format"] for record in first] == ["chat", "chat"]
        row = json.loads((tmp_path / "run" / "data-2" / "train.jsonl").read_text().splitlines()[0])
        assert "[[ ## best_action ## ]]" in row["completion"][0]["content"]
        assert tuned.value.lm.startswith("hosted_vllm/player@value-v2-")
        assert tuned(task="4 5 6 10").usage["value"]["parse_failures"] == 0
        tuned.save(tmp_path / "program.json")
        assert judge(json.loads((tmp_path / "program.json").read_text()))["settings"]["format"] == "chat"


def test_an_adapter_is_never_asked_in_another_format(env, tmp_path):
    stl = SelfTaughtLookahead(tasks_per_iteration=2, run_dir=tmp_path / "run",
                              lora=LoraSettings(epochs=1, learning_rate=1e-3, batch_size=8, max_length=64))
    value = Value(env.value_signature, "embedded/game24", samples=2)
    tuned = stl.compile(BeamSearch(env, LegalMoves(), value, width=2),
                        trainset=env.tasks("train"))
    tuned.value.format = "chat"
    with pytest.raises(AdapterError, match="trained on the format 'compact' and cannot be asked in 'chat'"):
        tuned(task="4 5 6 10")
    tuned.value.format = None
    tuned.save(tmp_path / "program.json")
    saved = json.loads((tmp_path / "program.json").read_text())
    assert judge(saved)["settings"]["format"] == "compact"
    judge(saved)["settings"]["format"] = "lookahead"
    (tmp_path / "program.json").write_text(json.dumps(saved))
    loaded = BeamSearch(env, LegalMoves(), Uniform())
    with pytest.raises(AdapterError, match="cannot be asked in 'lookahead'"):
        loaded.load(tmp_path / "program.json")
    assert models.load(tuned.value.lm).name == tuned.value.lm


def test_an_unknown_format_is_named(env):
    with pytest.raises(ValueError, match="format='json': choose one of chat, compact, lookahead"):
        Value(env.value_signature, format="json")
