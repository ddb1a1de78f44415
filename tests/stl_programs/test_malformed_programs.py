"""Saved programs and adapters are somebody else's files: what is wrong in one is one line, and nothing is loaded."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from experiments.benchmarks.faults_saved import COUNTS, saved
from experiments.benchmarks.hot_load import random_adapter
from signatures import lookahead_variant
from stl_programs import MCTS, BeamSearch, BestFirstSearch, GameOf24, LegalMoves, Policy, Uniform, Value, models
from stl_programs.errors import AdapterError, ModelError, StlError
from stl_programs.models.artifacts import adapter_hash
from stl_programs.models.doors.dspy_lm import lm
from stl_programs.saving import build

ENV = GameOf24()
BASE, VERSION = "embedded/game24", "value-v1-malformed"
PREDICT = ("parts", "value", "parts", "predict")


def fresh(model=BASE):
    return MCTS(ENV, Policy(ENV.policy_signature, model), Value(ENV.value_signature, model, samples=1))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with a program, and its adapter beside it."""
    folder = tmp_path_factory.mktemp("malformed")
    name = f"{BASE}@{VERSION}"
    models.register_adapter(name, random_adapter(models.EMBEDDED / "game24", folder / "trained", 1))
    program = fresh()
    program.value.predict.signature = lookahead_variant(ENV.lookahead_signature, "lv+tr+r")
    program.value.predict.adapter = name
    (folder / "good").mkdir()
    program.save(folder / "good" / "p.json")
    models.unregister_adapter(name)
    return folder / "good"


@pytest.fixture
def copy(good, tmp_path):
    yield Path(shutil.copytree(good, tmp_path / "copy", symlinks=True))
    for name in models.registered_adapters():
        models.unregister_adapter(name)


def state_of(folder):
    return json.loads((folder / "p.json").read_text())


def put(state, *path, value):
    for key in path[:-1]:
        state = state[key]
    state[path[-1]] = value


def load(folder, text=None, program=None):
    if text is not None:
        (folder / "p.json").write_text(text)
    program = program or fresh()
    program.load(folder / "p.json")
    return program


def refused(work, kind=StlError):
    with pytest.raises(kind) as error:
        work()
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    return str(error.value)


def test_the_good_one_loads_and_copies_only_what_an_adapter_has(copy, tmp_path):
    program = load(copy)
    assert program.value.lm == f"{BASE}@{VERSION}" and program.value.predict.spec == BASE
    (copy / "p-adapters" / VERSION / "notes.txt").write_text("mine")
    (copy / "p-adapters" / VERSION / "more").symlink_to("/etc")
    program.save(tmp_path / "again.json")
    assert sorted(path.name for path in (tmp_path / "again-adapters" / VERSION).iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "provenance.json"]
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".partial"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "1", '"x"', "[" * 10**5, '{"a":' * 10**5, "9" * 5000,
                                  '{"kind": NaN}', '{"kind": 1e999}', "\x00", '{"kind": "MCTS"}'])
def test_what_is_no_program(copy, text):
    assert "p.json" in refused(lambda: load(copy, text))


def test_a_file_that_is_not_text_or_too_large(copy, monkeypatch):
    (copy / "p.json").write_bytes(b'{"kind": "\xff"}')
    assert "no UTF-8" in refused(lambda: load(copy))
    monkeypatch.setattr("stl_programs.search.files.PROGRAM_BYTES", 10)
    assert "larger than 10 bytes" in refused(lambda: load(copy, "{" + " " * 20 + "}"))
    assert "No such file" in refused(lambda: fresh().load(copy / "none.json"))
    assert "Is a directory" in refused(lambda: fresh().load(copy))
    (copy / "p.json").unlink()
    os.mkfifo(copy / "p.json")
    assert "is no file" in refused(lambda: load(copy))


SETTINGS = [("settings", name, value) for name, value in (
    ("simulations", "many"), ("simulations", 0), ("simulations", None), ("simulations", 1e9), ("simulations", True),
    ("exploration", "x"), ("exploration", -1), ("selection", "best"), ("selection", 1), ("backup", [1]),
    ("rollout", "yes"), ("parallel", -1), ("seed", "x"), ("seed", 1.5), ("expand_what", "some"), ("grow", "x"),
    ("environment", "x"), ("__class__", "x"), ("budget", {"budget": {"calls": "many"}}),
    ("budget", {"budget": {"evil": 1}}), ("budget", {"budget": {"calls": -1}}), ("budget", {"budget": [1]}),
    ("budget", 5),
    ("budget", {"labels": [["a", 1]]}),
    ("exploration", {"number": "nan"}), ("selection", {"function": "os.system"}))]
VALUES = [("parts", "value", "settings", name, value) for name, value in (
    ("aggregate", "sum"), ("aggregate", ["mean"]), ("rationale", "x"), ("scale", {"labels": []}), ("scale", "x"),
    ("scale", {"labels": [["a", "b"]]}), ("scale", {"labels": "ab"}), ("scale", {"labels": [["a", 1, 2]]}),
    ("scale", {"low": 2, "high": 1}), ("scale", {"low": "a", "high": 1}), ("scales", [["page", {"low": 0, "high": 1}]]),
    ("scales", [1]), ("scales", "x"), ("offsets", ["page"]), ("offsets", 5))]
DRAWS = [(*PREDICT, "settings", name, value) for name, value in (
    ("samples", "many"), ("samples", 0), ("samples", 10**6), ("samples", 1.5), ("samples", True), ("samples", None),
    ("temperature", "hot"), ("temperature", -1), ("max_tokens", "40"), ("max_tokens", 10**10), ("max_tokens", 0),
    ("format", "evil"), ("format", ["chat"]), ("logprobs", "x"), ("role", 5), ("lm", "x"), ("__init__", 1))]
PARTS = [(*PREDICT, name, value) for name, value in (
    ("demos", "x"), ("demos", [1]), ("train", 5), ("traces", {}), ("budget", [1]), ("budget", {"calls": "x"}),
    ("lm", 5), ("lm", "openai/../x"), ("lm", ""), ("lm", {"door": 5}), ("lm", {"model": 5}), ("lm", {}), ("lm", ["x"]),
    ("adapter", {"a": 1}), ("adapter", "x"), ("settings", None), ("settings", [1]), ("signature", None),
    ("signature", {"name": "X"}), ("extra", 1))] + [
    ("parts", "policy", value) for value in (
        None, 5, "LegalMoves", [], {}, {"kind": "Evil", "settings": {}, "parts": {}}, {"kind": "LegalMoves"},
        {"kind": "Uniform", "settings": {}, "parts": {}}, {"kind": "GreedySearch", "settings": {}, "parts": {}},
        {"dspy": "Predict", "state": {}}, {"of": {"a": 1}}, {"kind": ["x"], "settings": {}, "parts": {}})] + [
    ("parts", name, {"kind": "Uniform", "settings": {}, "parts": {}}) for name in (
        "forward", "environment", "__class__", "history", "callbacks", "x")] + [
    ("kind", "BeamSearch"), ("kind", None), ("environment", "x"), ("environment", None), ("parts", []),
    ("settings", "x"),
    ("parts", {}), ("environment", "two\nlines"), ("parts", "value", "parts", {}),
    ("parts", "value", {"kind": "PerDepth", "settings": {}, "parts": {"values": []}}),
    ("parts", "value", {"kind": "PerDepth", "settings": {}, "parts": {"values": {}}}),
    ("parts", "value", {"kind": "PerDepth", "settings": {}, "parts": {"values": [
        {"kind": "LegalMoves", "settings": {}, "parts": {}}]}})]
SIGNATURES = [(*PREDICT, "signature", name, value) for name, value in (
    ("name", 5), ("name", "a\x00b"), ("instructions", None), ("fields", []), ("fields", [1]), ("fields", {}))] + [
    (*PREDICT, "signature", "fields", 0, name, value) for name, value in (
        ("name", "a b"), ("name", "__class__"), ("name", "_x"), ("role", "both"), ("type", "os.system"), ("type", 5),
        ("type", "typing.Literal[__import__('os')]"), ("type", "typing.Literal[" + "(" * 9000 + "]"), ("prefix", 5))]


@pytest.mark.parametrize("where", [*SETTINGS, *VALUES, *DRAWS, *PARTS, *SIGNATURES],
                         ids=lambda where: ".".join(map(str, where))[-60:].encode("unicode_escape").decode())
def test_what_says_something_wrong(copy, where):
    state = state_of(copy)
    put(state, *where[:-1], value=where[-1])
    refused(lambda: load(copy, json.dumps(state)))
    refused(lambda: fresh().load_state(state) and None)


def test_a_setting_is_refused_as_by_the_constructor(copy):
    state = state_of(copy)
    state["settings"]["simulations"] = 0
    with pytest.raises(ValueError, match="simulations=0") as built:
        MCTS(ENV, LegalMoves(), Uniform(), simulations=0)
    assert str(built.value) in refused(lambda: load(copy, json.dumps(state)))
    put(state, *PREDICT, "settings", "samples", value=0)
    with pytest.raises(ValueError, match="samples=0") as built:
        Value(ENV.value_signature, BASE, samples=0)
    assert str(built.value) in refused(lambda: load(copy, json.dumps(state)))


def test_a_class_of_ones_own_is_checked_by_its_constructor(copy):
    class Sized(LegalMoves):
        settings = ("size",)

        def __init__(self, size: int = 1):
            super().__init__()
            if size > 9:
                raise KeyError(f"size={size}")
            self.size = size

    state = Sized(3).dump_state()
    assert build(state).size == 3
    for size in (10, "x", None, [1]):
        refused(lambda size=size: Sized().load_state(state | {"settings": {"size": size}}))
        refused(lambda size=size: build(state | {"settings": {"size": size}}))


def test_a_part_that_is_built_is_whole(copy):
    value = build(Value(ENV.value_signature, BASE, samples=4).dump_state())
    value.samples = 5
    assert value.predict.samples == 5 and value.pages == {} and value.offsets == []


def test_infinity_survives_and_no_file_holds_it_as_a_number(tmp_path):
    made = BestFirstSearch(ENV, LegalMoves(), Uniform(), enough=math.inf)
    made.save(tmp_path / "p.json")
    assert "Infinity" not in (tmp_path / "p.json").read_text()
    loaded = BestFirstSearch(ENV, LegalMoves(), Uniform())
    loaded.load(tmp_path / "p.json")
    assert loaded.enough == math.inf


# Adapters

@pytest.mark.parametrize("path", [
    "../copy/p-adapters/value-v1-malformed", "p-adapters/../p-adapters/value-v1-malformed", "/etc", "", ".", "none", 5,
    "C:\\x", "p-adapters\\..\\..\\x", "a\x00b", "p-adapters/value-v1-malformed/adapter_config.json", "x" * 5000])
def test_an_adapter_lies_inside(copy, path):
    state = state_of(copy)
    put(state, *PREDICT, "adapter", "path", value=path)
    refused(lambda: load(copy, json.dumps(state)), AdapterError)


def test_an_adapter_at_an_absolute_path_is_refused_although_it_is_the_right_one(copy):
    state = state_of(copy)
    put(state, *PREDICT, "adapter", "path", value=str(copy / "p-adapters" / VERSION))
    assert "names folders beside itself" in refused(lambda: load(copy, json.dumps(state)), AdapterError)


@pytest.mark.parametrize("what", ["adapters", "adapter", "adapter_config.json", "adapter_model.safetensors",
                                  "provenance.json", "more"])
def test_no_symbolic_link_is_followed(good, copy, what):
    folder, real = copy / "p-adapters" / VERSION, good / "p-adapters" / VERSION
    link = {"adapters": folder.parent, "adapter": folder}.get(what, folder / what)
    source = {"adapters": real.parent, "adapter": real, "more": real}.get(what, real / what)
    shutil.rmtree(link, ignore_errors=True)
    link.unlink(missing_ok=True)
    link.symlink_to(source)
    assert "symbolic link" in refused(lambda: load(copy), AdapterError)


@pytest.mark.parametrize(("name", "value"), [
    ("name", "embedded/game24"), ("name", f"{BASE}@../../escaped"), ("name", f"{BASE}@.hidden"),
    ("name", f"{BASE}@a/b"), ("name", f"{BASE}@" + "x" * 200), ("name", 5), ("name", "@x"), ("sha256", "0" * 64),
    ("sha256", 5),
    ("sha256", None), ("base_sha256", "0" * 64), ("base_sha256", []), ("extra", 1)])
def test_what_a_record_may_say(copy, name, value):
    state = state_of(copy)
    put(state, *PREDICT, "adapter", name, value=value)
    refused(lambda: load(copy, json.dumps(state)), AdapterError)
    assert not models.registered_adapters()


def test_an_adapter_that_is_named_and_not_brought(copy):
    state = state_of(copy)
    put(state, *PREDICT, "adapter", value=None)
    put(state, *PREDICT, "lm", value=f"{BASE}@{VERSION}")
    assert "is not registered" in refused(lambda: load(copy, json.dumps(state)), AdapterError)


@pytest.mark.parametrize("config", [
    {"r": 10**6}, {"r": "16"}, {"r": 0}, {"r": -1}, {"r": 1.5}, {"peft_type": "EVIL"}, {"peft_type": "IA3"},
    {"task_type": "EVIL"}, {"lora_alpha": 1e30}, {"lora_alpha": "16"}, {"lora_alpha": math.nan}, {"use_dora": True},
    {"auto_mapping": {"base_model_class": "os", "parent_library": "os"}}, {"megatron_config": {"a": 1}},
    {"megatron_core": "antigravity"}, {"init_lora_weights": "pissa"}, {"evil": 1}, {"rank_pattern": {"(a+)+$": 4}},
    {"modules_to_save": ["lm_head"]}, {"layer_replication": [[0, 2]] * 300}, {"target_modules": "(a+)+$"},
    {"target_modules": []}, {"target_modules": ["(a+)+$"]}, {"target_modules": None}, {"target_parameters": ["x"]},
    {"bias": "all"}, {"loftq_config": {"bits": 4}}, {"runtime_config": {"a": 1}}, {"lora_dropout": 2},
    {"layers_to_transform": [-1]}, {"base_model_name_or_path": 5}],
    ids=lambda config: "-".join(config))
def test_a_configuration_says_only_what_a_lora_of_this_project_does(copy, config):
    folder = copy / "p-adapters" / VERSION
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    refused(lambda: load(copy), AdapterError)
    state = state_of(copy)
    put(state, *PREDICT, "adapter", "sha256", value=adapter_hash(folder))
    refused(lambda: load(copy, json.dumps(state)), AdapterError)
    refused(lambda: models.register_adapter(f"{BASE}@other", folder), AdapterError)


@pytest.mark.parametrize("weights", [
    b"", b"x", (2**60).to_bytes(8, "little") + b"{}", (4).to_bytes(8, "little") + b"{{{{", b"\x00" * 8,
    (2).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]", (2).to_bytes(8, "little") + b"\xff\xff",
    (13).to_bytes(8, "little") + b'{"a":{"b":1}}', "pickle", "cut", "nan"])
def test_weights_are_looked_at_before_they_are_loaded(copy, weights):
    file = copy / "p-adapters" / VERSION / "adapter_model.safetensors"
    if weights == "nan":
        save_file({key: tensor * math.nan for key, tensor in load_file(file).items()}, file)
    else:
        data = {"pickle": b"\x80\x04K\x01.", "cut": file.read_bytes()[:-8]}.get(weights, weights)
        file.write_bytes(data)
    refused(lambda: load(copy), AdapterError)
    refused(lambda: models.register_adapter(f"{BASE}@other", file.parent), AdapterError)
    assert not models.registered_adapters()


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"base_sha256": 5}', '{"base_sha256": "X"}', "[" * 10**5, "",
                                  '{"base_sha256": "00", "format": ["x"]}', '{"base_sha256": "00", "format": "evil"}'])
def test_what_a_provenance_is(copy, text):
    (copy / "p-adapters" / VERSION / "provenance.json").write_text(text)
    refused(lambda: load(copy), AdapterError)
    refused(lambda: models.register_adapter(f"{BASE}@other", copy / "p-adapters" / VERSION), AdapterError)


# Saving

def test_saving_replaces_a_link_and_leaves_what_it_led_to(copy, tmp_path):
    program, other = load(copy), tmp_path / "other.txt"
    other.write_text("mine")
    (tmp_path / "p.json").symlink_to(other)
    program.save(tmp_path / "p.json")
    assert other.read_text() == "mine" and not (tmp_path / "p.json").is_symlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "q-adapters").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in refused(lambda: program.save(tmp_path / "q.json"), AdapterError)
    assert not list((tmp_path / "elsewhere").iterdir()) and not (tmp_path / "q.json").exists()


def test_a_program_that_cannot_be_written_leaves_the_one_before(tmp_path):
    program = BeamSearch(ENV, LegalMoves(), Value(ENV.value_signature, "openai/x"))
    program.save(tmp_path / "p.json")
    before = (tmp_path / "p.json").read_text()
    program.value.predict.demos = [{"state": object()}]
    refused(lambda: program.save(tmp_path / "p.json"))
    assert (tmp_path / "p.json").read_text() == before
    assert "cannot write the program" in refused(lambda: BeamSearch(ENV, LegalMoves(), Uniform()).save(
        tmp_path / "none" / "p.json"))


def test_nothing_named_like_a_credential_is_saved(tmp_path):
    model = lm("hosted_vllm/t", api_base="http://user:hunter2@127.0.0.1:9/v1?key=QUERY99", api_key="sk-SECRET1",
               cache=False, auth_token="TOKENSECRET1", extra_headers={"X-Org": "HEADER1"},
               extra_body={"password": "NESTEDSECRET1", "deep": [{"api_key": "NESTEDSECRET2", "top_k": 5}]})
    program = BeamSearch(ENV, LegalMoves(), Value(ENV.value_signature, model, max_tokens=77))
    program.save(tmp_path / "p.json")
    text = (tmp_path / "p.json").read_text()
    for secret in ("sk-SECRET1", "hunter2", "QUERY99", "TOKENSECRET1", "NESTEDSECRET1", "NESTEDSECRET2", "HEADER1"):
        assert secret not in text and secret not in json.dumps(model.dump_state(), default=str), secret
    assert '"top_k": 5' in text and '"max_tokens": 77' in text


@pytest.mark.parametrize("hidden", ["api_base", "base_url", "endpoint", "model_list", "proxy", "engine", "deep"])
def test_a_server_that_only_the_file_names_is_not_asked(copy, hidden):
    state = state_of(copy)
    connection = {hidden: "http://evil/v1"}
    if hidden == "deep":
        connection = {"extra_body": {"x": [{"base_url": "http://evil/v1"}]}}
    put(state, *PREDICT, "lm", value={"door": "hosted_vllm/x", "connection": connection, "settings": {}, "cache": True})
    put(state, *PREDICT, "adapter", value=None)
    assert "allow_unsafe_lm_state=True" in refused(lambda: load(copy, json.dumps(state)), ModelError)


def test_damaged_files_are_clear_errors(tmp_path):
    found = saved(150, 3, tmp_path / "faults")
    assert found["mutations"] == 150 and found["refused"] > 75
    assert not any(found[name] for name in COUNTS[3:]), found
