"""A real TRL and PEFT training, small: what it sees, what it refuses, and that it is done once and whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from optimizers.data.rows import Dataset
from optimizers.trainers.sft import IGNORED, LoraSettings, lora_trainer, tokenized, train_adapter
from stl_programs import models
from stl_programs.errors import AdapterError, ModelError, StlError

BASE = models.EMBEDDED / "game24"
QUICK = LoraSettings(rank=4, epochs=2, batch_size=4, learning_rate=3e-3, warmup_steps=1, max_length=64)


def row(prompt: str, reply: str) -> dict:
    return {"prompt": [{"role": "user", "content": prompt}], "completion": [{"role": "assistant", "content": reply}]}


SHORT = row("value 4 6", "4 * 6 = 24 -> 24 . end | sure")
LONG = row("value 4 6 1 1", "4 * 6 = 24 -> 1 1 24 . 1 * 1 = 1 -> 1 24 . 1 * 24 = 24 -> 24 . end | sure")


def dataset(rows: list[dict], validation: list[dict] | None = None) -> Dataset:
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return Dataset([], rows, validation or [], {"sha256": digest, "signature": None, "variant": None, "format": None})


def tokenizer(base: Path = BASE):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(base)


def weights(folder: Path) -> dict:
    import safetensors.torch

    return safetensors.torch.load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "adapter"
    train_adapter(dataset([SHORT, LONG] * 4), BASE, out, QUICK)
    return out


@pytest.mark.parametrize("loss", ["output", "input+output"])
def test_rows_become_the_tokens_that_trl_makes_of_them(tmp_path, loss):
    import datasets
    import transformers
    import trl

    settings = LoraSettings(max_length=64, loss=loss)
    ours = tokenized([SHORT, LONG], tokenizer(), BASE, settings)
    trainer = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(BASE), processing_class=tokenizer(),
        train_dataset=datasets.Dataset.from_list([SHORT, LONG]), args=trl.SFTConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=64,
            completion_only_loss=loss == "output"))
    theirs = [{"input_ids": found["input_ids"], "labels": found["labels"]} for found in trainer.train_dataset]
    assert ours == theirs


def test_the_loss_is_on_the_reply_and_its_end():
    text = tokenizer()
    [found] = tokenized([SHORT], text, BASE, QUICK)
    trained_on = [token for token, label in zip(found["input_ids"], found["labels"], strict=True) if label != IGNORED]
    assert text.decode(trained_on, skip_special_tokens=True) == "4 * 6 = 24 -> 24 . end | sure"
    assert trained_on[-1] == text.eos_token_id


def test_rows_are_never_cut():
    settings = LoraSettings(max_length=20)
    with pytest.raises(StlError, match=r"2 of 3 rows are longer than max_length=20 tokens \(the longest: \d+\)"):
        tokenized([LONG, SHORT, LONG], tokenizer(), BASE, settings)


@pytest.mark.parametrize("reply_of_the_template", ["{{ m['content'] }} ", "<unk> {{ m['content'] }} <|end|> <pad>"])
def test_what_is_trained_is_the_served_prompt_the_reply_and_the_end(reply_of_the_template):
    text = tokenizer()
    text.chat_template = ("{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }} {% else %}"
                          + reply_of_the_template
                          + "{% endif %}{% endfor %}{% if add_generation_prompt %}sure{% endif %}")
    [found] = tokenized([row("4 6", "10")], text, BASE, QUICK)
    assert text.decode(found["input_ids"]) == "4 6 sure 10 <|end|>"
    assert [label != IGNORED for label in found["labels"]] == [False, False, False, True, True]


def test_a_base_without_chat_template_is_refused(tmp_path):
    bare = shutil.copytree(BASE, tmp_path / "bare", ignore=shutil.ignore_patterns("chat_template.jinja"))
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="has no chat template; add one"):
        train_adapter(dataset([SHORT]), bare, tmp_path / "adapter", QUICK)
    assert not (tmp_path / "adapter").exists()


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(StlError, match="no row to train"):
        train_adapter(dataset([]), BASE, tmp_path / "adapter", QUICK)


def test_only_an_adapter_of_this_base_and_rank_is_trained_on(trained, tmp_path):
    def go_on(adapter: Path, settings: LoraSettings = QUICK) -> None:
        train_adapter(dataset([SHORT]), BASE, tmp_path / "new", settings, continue_from=adapter)

    with pytest.raises(AdapterError, match="rank 4 and alpha 16; the settings say 8 and 16"):
        go_on(trained, replace(QUICK, rank=8))
    foreign = shutil.copytree(trained, tmp_path / "foreign")
    record = json.loads((foreign / "provenance.json").read_text())
    (foreign / "provenance.json").write_text(json.dumps(record | {"base_sha256": "0123456789abcdef"}))
    with pytest.raises(AdapterError, match="was trained on base 0123456789ab; this base is"):
        go_on(foreign)
    (foreign / "provenance.json").unlink()
    with pytest.raises(AdapterError, match=r"it has no provenance\.json"):
        go_on(foreign)
    with pytest.raises(AdapterError, match=r"adapter_config\.json is missing"):
        go_on(tmp_path / "nothing")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(AdapterError, match="is no adapter of this project"):
        train_adapter(dataset([SHORT]), BASE, tmp_path / "mine", QUICK)


def test_a_finished_training_is_kept_also_when_settings_grow(trained, tmp_path):
    old = shutil.copytree(trained, tmp_path / "old")
    record = json.loads((old / "provenance.json").read_text())
    del record["settings"]["length_bucketing"], record["settings"]["gradient_checkpointing"]
    (old / "provenance.json").write_text(json.dumps(record))
    before = (old / "adapter_model.safetensors").stat().st_mtime_ns
    found = train_adapter(dataset([SHORT, LONG] * 4), BASE, old, QUICK)
    assert found["steps"] == 4 and (old / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(AdapterError, match="another training"):
        train_adapter(dataset([SHORT, LONG] * 4), BASE, old, replace(QUICK, length_bucketing=True))


def test_the_configuration_names_no_path_and_keeps_one_order(trained):
    config = json.loads((trained / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == "game24"


def test_a_training_leaves_nothing_beside_its_adapter(trained):
    assert [path.name for path in trained.parent.iterdir()] == ["adapter"]


def test_bucketing_pads_less_and_is_off_by_default(tmp_path):
    def padding(settings: LoraSettings) -> int:
        trainer = lora_trainer(dataset([SHORT, LONG] * 32), BASE, tmp_path / "out", settings)
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in trainer.get_train_dataloader())

    assert padding(LoraSettings(batch_size=8, length_bucketing=True)) < padding(LoraSettings(batch_size=8)) / 2


def test_gradient_checkpointing_trains_the_same_adapter(trained, tmp_path):
    settings = replace(QUICK, gradient_checkpointing=True)
    trainer = lora_trainer(dataset([SHORT, LONG] * 4), BASE, tmp_path / "out", settings)
    trainer.train()
    assert [layer.gradient_checkpointing for layer in trainer.model.get_base_model().model.layers] == [True, True]
    plain = weights(trained)
    found = {name.replace(".default", ""): weight.detach() for name, weight in trainer.model.named_parameters()}
    assert all(float((plain[name] - found[name]).abs().max()) < 1e-6 for name in plain)
    assert any(float(weight.abs().max()) > 1e-3 for name, weight in plain.items() if "lora_B" in name)


@pytest.mark.slow
def test_a_killed_training_is_repeated_and_a_finished_one_is_not(tmp_path):
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from optimizers.trainers.sft import train_adapter
        from tests.optimizers.trainers.test_sft import BASE, LONG, QUICK, SHORT, dataset
        record = train_adapter(dataset([SHORT, LONG] * 8), BASE, Path(sys.argv[1]), QUICK,
                               progress=lambda step, steps: print(step, flush=True))
        print("finished", record["steps"], flush=True)
    """)
    root = Path(__file__).parents[3]

    def start(out: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True, cwd=root,
                                env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first = start(killed)
    assert first.stdout is not None
    assert [first.stdout.readline().strip() for _ in range(3)] == ["1", "2", "3"]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not killed.exists() and (tmp_path / "killed.partial").exists()

    assert start(killed).communicate()[0].split() == [*map(str, range(1, 9)), "finished", "8"]
    assert not (tmp_path / "killed.partial").exists()
    assert start(whole).communicate()[0].endswith("finished 8\n")
    assert models.adapter_hash(killed) == models.adapter_hash(whole)
    assert start(killed).communicate()[0] == "finished 8\n"
