"""From training rows to a LoRA adapter: the only importer of peft and trl."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from optimizers.dataset import Dataset
from stl_programs.adapters import PROVENANCE
from stl_programs.errors import AdapterError
from stl_programs.models import adapter_hash

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL = 20_000_000
"""Parameters below which one thread trains faster than several (a 0.3 M model: 12 times, on two cores)."""
LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets")


@dataclass(frozen=True)
class LoraSettings:
    """How an adapter is trained. Defaults are the paper's (table 8, appendix H).

    `loss` is on the model's turn ("output") or on the whole sequence ("input+output").
    `warmup_steps` and `batch_size` count optimizer steps and rows.
    """

    rank: int = 16
    alpha: int = 16
    learning_rate: float = 2e-4
    warmup_steps: int = 10
    weight_decay: float = 0.01
    batch_size: int = 8
    epochs: float = 10
    max_length: int = 8192
    loss: Literal["output", "input+output"] = "output"
    schedule: str = "linear"

    def __post_init__(self) -> None:
        if self.loss not in ("output", "input+output"):
            raise ValueError(f"loss={self.loss!r}: choose 'output' or 'input+output'")
        for name in ("rank", "alpha", "learning_rate", "batch_size", "epochs", "max_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")


def train_adapter(dataset: Dataset, base: Path, out: Path, settings: LoraSettings, *, seed: int = 0,
                  continue_from: Path | None = None, provenance: dict[str, Any] | None = None,
                  progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Fine-tune a LoRA on `dataset` and write it to `out` (safetensors, config, provenance).

    Args:
        base: directory of the base model; its chat template renders the rows, as in serving.
        out: appears only when the training has finished. If it is there from the same data, base and settings, it is
            kept and nothing is trained.
        continue_from: an adapter of the same base to start from, instead of a fresh one.
        progress: called with (step, steps).

    Returns the provenance, with the losses. Raises AdapterError where `out` holds another training's adapter.
    """
    from stl_programs.models.in_process import weights_hash

    record = {
        **(provenance or {}), "base_sha256": weights_hash(base), "data_sha256": dataset.manifest["sha256"],
        "signature": dataset.manifest["signature"], "variant": dataset.manifest["variant"],
        "format": dataset.manifest["format"], "settings": asdict(settings), "seed": seed,
        "continue_from": adapter_hash(continue_from) if continue_from else None,
        "libraries": {name: version(name) for name in LIBRARIES}}
    if out.exists():
        found = json.loads((out / PROVENANCE).read_text())
        if any(found.get(key) != record[key] for key in record):
            raise AdapterError(f"{out} holds an adapter of another training; choose another run directory")
        return found
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers renames what trl still uses
        record |= _train(dataset, base, partial, settings, seed, continue_from, progress)
    (partial / PROVENANCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.rename(partial, out)
    return record


def _train(dataset: Dataset, base: Path, out: Path, settings: LoraSettings, seed: int, continue_from: Path | None,
           progress: Callable[[int, int], None] | None) -> dict[str, Any]:
    import datasets
    import peft
    import torch
    import transformers
    import trl

    class Report(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress:
                progress(state.global_step, state.max_steps)

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    transformers.set_seed(seed)
    datasets.disable_progress_bars()
    gpu = torch.cuda.is_available()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16 if gpu else torch.float32)
    if model.num_parameters() < SMALL:
        torch.set_num_threads(1)
    if continue_from:
        model = peft.PeftModel.from_pretrained(model, continue_from, is_trainable=True)
    else:
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=list(TARGETS), task_type="CAUSAL_LM"))
    scratch = out.with_name(out.name + "-trainer")
    trainer = trl.SFTTrainer(
        model=model, processing_class=tokenizer, callbacks=[Report()],
        train_dataset=datasets.Dataset.from_list(dataset.rows),
        eval_dataset=datasets.Dataset.from_list(dataset.validation_rows) if dataset.validation_rows else None,
        args=trl.SFTConfig(
            output_dir=str(scratch), num_train_epochs=settings.epochs, learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size, per_device_eval_batch_size=64,
            warmup_steps=settings.warmup_steps, weight_decay=settings.weight_decay,
            lr_scheduler_type=settings.schedule, max_length=settings.max_length,
            completion_only_loss=settings.loss == "output", seed=seed, data_seed=seed,
            use_cpu=not gpu, bf16=gpu, gradient_checkpointing=gpu, dataloader_pin_memory=gpu,
            logging_strategy="epoch", eval_strategy="epoch" if dataset.validation_rows else "no", save_strategy="no",
            report_to="none", disable_tqdm=True))
    trainer.remove_callback(transformers.PrinterCallback)
    result = trainer.train()
    trainer.model.save_pretrained(out, safe_serialization=True)
    shutil.rmtree(scratch, ignore_errors=True)
    history = trainer.state.log_history
    return {
        "losses": [round(row["loss"], 4) for row in history if "loss" in row],
        "validation_losses": [round(row["eval_loss"], 4) for row in history if "eval_loss" in row],
        "steps": result.global_step, "train_seconds": round(result.metrics["train_runtime"], 2)}
