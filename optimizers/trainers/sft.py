"""From training rows to a LoRA adapter: the only importer of peft and trl."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optimizers.data.rows import Dataset
from optimizers.trainers.base import Progress, Trainer
from stl_programs.errors import AdapterError, ModelError, StlError
from stl_programs.models.adapters import check_adapter, read_config, read_provenance
from stl_programs.models.artifacts import PROVENANCE, weights_hash

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL = 20_000_000
"""Parameters below which one thread trains faster than several (a 0.3 M model: 12 times, on two cores)."""
IGNORED = -100
"""The label of a token that no loss is taken on."""


@dataclass(frozen=True)
class LoraSettings:
    """How an adapter is trained. Defaults are the paper's (table 8, appendix H).

    `loss` is on the model's turn ("output") or on the whole sequence ("input+output").
    `warmup_steps` and `batch_size` count optimizer steps and rows, `max_length` tokens of a row with its chat template.
    `length_bucketing` makes batches of rows of similar length: less padding, another order of rows.
    `gradient_checkpointing` computes activations twice to hold fewer; None: where there is a GPU.
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
    length_bucketing: bool = False
    gradient_checkpointing: bool | None = None

    def __post_init__(self) -> None:
        if self.loss not in ("output", "input+output"):
            raise ValueError(f"loss={self.loss!r}: choose 'output' or 'input+output'")
        for name in ("rank", "alpha", "learning_rate", "batch_size", "epochs", "max_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")


class SupervisedTrainer(Trainer):
    """Supervised fine-tuning by TRL: the loss of the model's turn, or of the whole sequence."""

    kind = "sft"
    settings: LoraSettings

    def fit(self, dataset: Dataset, base: Path, folder: Path, *, seed: int, continue_from: Path | None,
            progress: Progress | None) -> dict[str, Any]:
        if continue_from:
            _check_start(continue_from, weights_hash(base), self.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers renames what trl still uses
            trainer = lora_trainer(dataset, base, folder, self.settings, seed=seed, continue_from=continue_from,
                                   progress=progress)
            result = trainer.train()
        _save(trainer.model, base, folder)
        history = trainer.state.log_history
        return {
            "losses": [round(row["loss"], 4) for row in history if "loss" in row],
            "validation_losses": [round(row["eval_loss"], 4) for row in history if "eval_loss" in row],
            "steps": result.global_step, "train_seconds": round(result.metrics["train_runtime"], 2)}


def train_adapter(dataset: Dataset, base: Path, out: Path, settings: LoraSettings, **options: Any) -> dict[str, Any]:
    """`SupervisedTrainer(settings).train(...)`."""
    return SupervisedTrainer(settings).train(dataset, base, out, **options)


def _check_start(adapter: Path, base_sha256: str, settings: LoraSettings) -> None:
    """Raises AdapterError where a training with these settings cannot go on from `adapter`."""
    if not (adapter / PROVENANCE).is_file():
        raise AdapterError(f"continue_from={adapter} is no adapter of this project: it has no {PROVENANCE}")
    trained_on = read_provenance(adapter).base_sha256
    if trained_on != base_sha256:
        raise AdapterError(f"continue_from={adapter} was trained on base {trained_on[:12]}; this base is "
                           f"{base_sha256[:12]}")
    check_adapter(adapter)
    config = read_config(adapter)
    if (config.r, config.lora_alpha) != (settings.rank, settings.alpha):
        raise AdapterError(f"continue_from={adapter} has rank {config.r} and alpha {config.lora_alpha:g}; the "
                           f"settings say {settings.rank} and {settings.alpha}: make them equal")


def lora_trainer(dataset: Dataset, base: Path, folder: Path, settings: LoraSettings, *, seed: int = 0,
                 continue_from: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Any:
    """The trl.SFTTrainer of a training, with model and tokens loaded. It makes `folder` and writes no file there."""
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
    rows, validation = (tokenized(part, tokenizer, base, settings) for part in (dataset.rows, dataset.validation_rows))
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16 if gpu else torch.float32)
    if model.num_parameters() < SMALL:
        torch.set_num_threads(1)
    if continue_from:
        model = peft.PeftModel.from_pretrained(model, continue_from, is_trainable=True)
    else:
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=list(TARGETS), task_type="CAUSAL_LM"))
    checkpointing = gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing
    trainer = trl.SFTTrainer(
        model=model, processing_class=tokenizer, callbacks=[Report()],
        train_dataset=datasets.Dataset.from_list(rows),
        eval_dataset=datasets.Dataset.from_list(validation) if validation else None,
        args=trl.SFTConfig(
            output_dir=str(folder), num_train_epochs=settings.epochs, learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size, per_device_eval_batch_size=64,
            warmup_steps=settings.warmup_steps, weight_decay=settings.weight_decay,
            lr_scheduler_type=settings.schedule, max_length=None, seed=seed, data_seed=seed,
            train_sampling_strategy="group_by_length" if settings.length_bucketing else "random",
            use_cpu=not gpu, bf16=gpu, gradient_checkpointing=checkpointing, dataloader_pin_memory=gpu,
            logging_strategy="epoch", eval_strategy="epoch" if validation else "no", save_strategy="no",
            report_to="none", disable_tqdm=True))
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def tokenized(rows: list[dict[str, Any]], tokenizer: Any, base: Path, settings: LoraSettings) -> list[dict[str, Any]]:
    """Rows as the model sees them: token ids, and labels that ignore what no loss is taken on.

    Raises ModelError for a tokenizer without chat template, StlError for rows longer than `settings.max_length` (a cut
    row would teach a reply without its score) and for a template that does not serve what it trains.
    """
    if tokenizer.chat_template is None:
        raise ModelError(f"{base} has no chat template; add one to its tokenizer")
    found = []
    for row in rows:
        prompt, whole = (tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=False)
                         for messages, ask in ((row["prompt"], True), (row["prompt"] + row["completion"], False)))
        if whole[:len(prompt)] != prompt:
            raise StlError(f"the chat template of {base} renders a prompt otherwise once a reply follows it, so that "
                           "training would not show what serving shows; give the tokenizer one that does not")
        labels = [IGNORED] * len(prompt) + whole[len(prompt):] if settings.loss == "output" else list(whole)
        found.append({"input_ids": whole, "labels": labels})
    if over := [len(row["input_ids"]) for row in found if len(row["input_ids"]) > settings.max_length]:
        raise StlError(f"{len(over)} of {len(found)} rows are longer than max_length={settings.max_length} tokens (the "
                       f"longest: {max(over)}); raise max_length, or drop them with a filter")
    return found


def _save(model: Any, base: Path, folder: Path) -> None:
    """Weights and configuration, the same bytes from the same training on every machine: so is the adapter's name."""
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base.name
    file.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
