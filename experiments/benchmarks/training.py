"""What the trainer costs beside the arithmetic: LoRA training against a bare PyTorch and PEFT loop."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.face import Row, at_least, main, median_and_spread
from optimizers.data.rows import Dataset
from optimizers.trainers.sft import LoraSettings, lora_trainer
from stl_programs.models import EMBEDDED

SETTINGS = LoraSettings(epochs=11, batch_size=8, learning_rate=1e-3)
ROWS = 80
SEED = 0
SAME = 1e-5
"""Weights less far apart are those of one training: sums in another order."""


def lora_training() -> list[Row]:
    """LoRA training of a random Llama of 10.8 M parameters, fp32, one thread: tokens/s over those of a bare loop.

    Two trainings of the same batches advance by turns, a step each; their last weights have to be the same. Imports,
    model loading and tokenisation are outside on both sides; collation and logging are inside ours alone.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return _compare(Path(folder))
    finally:
        torch.set_num_threads(threads)


def _compare(folder: Path) -> list[Row]:
    base = random_base(folder / "base")
    per_epoch = ROWS // SETTINGS.batch_size
    bare = BareLoop(base, steps=per_epoch * int(SETTINGS.epochs))
    batches: list[dict[str, Any]] = []
    ours_seconds, bare_seconds, resumed = list[float](), list[float](), list[float]()

    def collated(examples: Any) -> Any:
        batches.append(collate(examples))
        return batches[-1]

    def other_side(step: int, _: int) -> None:
        ours_seconds.append(time.perf_counter() - resumed[-1])
        bare_seconds.append(bare.step(batches[step - 1]))
        resumed.append(time.perf_counter())

    trainer = lora_trainer(Dataset([], game_rows(ROWS), [], {}), base, folder / "out", SETTINGS, seed=SEED,
                           progress=other_side)
    collate, trainer.data_collator = trainer.data_collator, collated
    resumed.append(time.perf_counter())
    trainer.train()
    apart = max(float((ours - theirs).detach().abs().max())
                for ours, theirs in zip(_weights(trainer.model), _weights(bare.model), strict=True))
    if apart > SAME:
        raise AssertionError(f"the two sides trained different adapters: their weights are {apart:.2g} apart")
    tokens, ours, theirs = (np.reshape(found, (-1, per_epoch)).sum(1) for found in (
        [int(batch["attention_mask"].sum()) for batch in batches], ours_seconds, bare_seconds))
    ratio, spread = median_and_spread((theirs / ours)[1:])
    return [at_least("LoRA training, tokens/s over a bare PyTorch + PEFT loop", ratio, 0.9, "x",
                     f"{spread} epochs of {per_epoch} steps, by turns; last weights at most {apart:.1g} apart"),
            Row("the same, with the trainer's start and the first epoch", float(theirs.sum() / ours.sum()), "x",
                None, None, f"over {SETTINGS.epochs:g} epochs"),
            *(Row(f"LoRA training, {name}", figure, "tokens/s", None, None, spread) for name, (figure, spread) in (
                ("this trainer", median_and_spread((tokens / ours)[1:])),
                ("bare loop", median_and_spread((tokens / theirs)[1:]))))]


class BareLoop:
    """The same training as one would write it by hand, on collated batches."""

    def __init__(self, base: Path, steps: int):
        import peft
        import torch
        import transformers

        transformers.set_seed(SEED)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.model = peft.get_peft_model(model, peft.LoraConfig(
            r=SETTINGS.rank, lora_alpha=SETTINGS.alpha, target_modules="all-linear", task_type="CAUSAL_LM"))
        self.parameters = _weights(self.model)
        self.optimizer = torch.optim.AdamW(self.parameters, SETTINGS.learning_rate,
                                           weight_decay=SETTINGS.weight_decay, fused=True)
        self.schedule = transformers.get_linear_schedule_with_warmup(self.optimizer, SETTINGS.warmup_steps, steps)
        self.clip = torch.nn.utils.clip_grad_norm_
        self.model.train()

    def step(self, batch: dict[str, Any]) -> float:
        """Its seconds."""
        started = time.perf_counter()
        self.model(**batch, use_cache=False).loss.backward()
        self.clip(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - started


def _weights(model: Any) -> list[Any]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def random_base(folder: Path) -> Path:
    """A Llama of 10.8 M random parameters that reads the embedded model's tokens."""
    import transformers

    shutil.copytree(EMBEDDED / "game24", folder, ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    shutil.copy(EMBEDDED / "game24" / "tokenizer_config.json", folder)
    transformers.logging.disable_progress_bar()
    transformers.set_seed(SEED)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=241, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=6, head_dim=64, max_position_embeddings=256, pad_token_id=0, eos_token_id=4,
        bos_token_id=None, tie_word_embeddings=False)).save_pretrained(folder)
    return folder


def game_rows(count: int, seed: int = SEED) -> list[dict[str, Any]]:
    """Rows like those of Game of 24: sums over 2 to 4 numbers, 15 to 45 tokens."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        numbers = [draw.randint(1, 13) for _ in range(draw.randint(2, 4))]
        state, steps = " ".join(map(str, numbers)), list[str]()
        while len(numbers) > 1:
            a, b, *rest = numbers
            numbers = [*rest, a + b]
            steps.append(f"{a} + {b} = {a + b} -> {' '.join(map(str, numbers))}")
        reply = " . ".join([*steps, "end"]) + f" | {'sure' if numbers == [24] else 'impossible'}"
        rows.append({"prompt": [{"role": "user", "content": f"lookahead {state}"}],
                     "completion": [{"role": "assistant", "content": reply}]})
    return rows


if __name__ == "__main__":
    sys.exit(main({"lora_training": lora_training}))
