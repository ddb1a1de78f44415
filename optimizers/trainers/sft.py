"""From training rows to a LoRA adapter: the only importer of peft and trl."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optimizers.data.rows import Dataset
from optimizers.trainers.base import Progress, Trainer
from optimizers.trainers.targets import lora_targets
from stl_programs.construct import Count, Natural, NotNegative, Positive, checked_class
from stl_programs.errors import AdapterError, StlError
from stl_programs.models.adapters import check_adapter, read_config, read_provenance
from stl_programs.models.artifacts import PROVENANCE, weights_hash

SMALL = 20_000_000
"""Parameters below which one thread trains faster than several (a 0.3 M model: 12 times, on two cores)."""
IGNORED = -100
"""The label of a token that no loss is taken on."""


Schedule = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
                   "inverse_sqrt"]
"""Of the learning rate after its warm-up, as transformers names them."""


@checked_class
@dataclass(frozen=True)
class LoraSettings:
    """How an adapter is trained. Defaults are the paper's (table 8, appendix H).

    `loss` is on the model's turn ("output") or on the whole sequence ("input+output").
    `warmup_steps` and `batch_size` count optimizer steps and rows, `max_length` tokens of a row with its chat template.
    `length_bucketing` makes batches of rows of similar length: less padding, another order of rows.
    `gradient_checkpointing` computes activations twice to hold fewer; None: where there is a GPU.
    `target_modules` names the layers that are tuned; None: every linear layer but the output head, as the paper's.
    """

    rank: Count = 16
    alpha: Count = 16
    learning_rate: Positive = 2e-4
    warmup_steps: Natural = 10
    weight_decay: NotNegative = 0.01
    batch_size: Count = 8
    epochs: Positive = 10
    max_length: Count = 8192
    loss: Literal["output", "input+output"] = "output"
    schedule: Schedule = "linear"
    length_bucketing: bool = False
    gradient_checkpointing: bool | None = None
    target_modules: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.target_modules is not None:
            if isinstance(self.target_modules, str) or not self.target_modules or not all(
                    isinstance(name, str) for name in self.target_modules):
                raise ValueError(f"target_modules={self.target_modules!r}: write a list of layer names, like "
                                 "['q_proj', 'v_proj'], or leave it out")
            object.__setattr__(self, "target_modules", tuple(sorted(self.target_modules)))


class SupervisedTrainer(Trainer):
    """Supervised fine-tuning by TRL: the loss of the model's turn, or of the whole sequence."""

    kind = "sft"
    settings: LoraSettings

    def check_model(self, base: Path) -> None:
        """Raises ModelError where the weights lack a part of the model, or it has no layer to tune."""
        from stl_programs.models.local.weights import check_weights

        lora_targets(check_weights(base), base, self.settings.target_modules)

    def fit(self, dataset: Dataset, base: Path, folder: Path, *, seed: int, continue_from: Path | None,
            progress: Progress | None) -> dict[str, Any]:
        if continue_from:
            _check_start(continue_from, weights_hash(base), self.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers renames what trl still uses
            warnings.filterwarnings("ignore", "fan_in_fan_out")  # peft sees for itself how a layer stores its weights
            trainer = lora_trainer(dataset, base, folder, self.settings, seed=seed, continue_from=continue_from,
                                   progress=progress)
            result = trainer.train()
        _save(trainer.model, base, folder)
        history = trainer.state.log_history
        return {
            "target_modules": _targets(folder),
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
    if settings.target_modules and (tuned := sorted(config.target_modules)) != list(settings.target_modules):
        raise AdapterError(f"continue_from={adapter} tunes {', '.join(tuned)}; the settings say target_modules="
                           f"{list(settings.target_modules)}: make them equal")


def lora_trainer(dataset: Dataset, base: Path, folder: Path, settings: LoraSettings, *, seed: int = 0,
                 continue_from: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Any:
    """The trl.SFTTrainer of a training, with model and tokens loaded. It makes `folder` and writes no file there."""
    import datasets
    import peft
    import torch
    import transformers
    import trl

    from stl_programs.models.local.chat import open_tokenizer
    from stl_programs.models.local.weights import check_weights, open_weights

    class Report(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            largest = [parameter.grad.abs().max() for parameter in model.parameters() if parameter.grad is not None]
            if largest and not torch.isfinite(torch.stack(largest)).all():
                _diverged(state, "a gradient is not finite", trainer)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress:
                progress(state.global_step, state.max_steps)

    class Watched(trl.SFTTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **options: Any) -> Any:
            loss = super().training_step(*args, **options)
            if not torch.isfinite(loss):
                _diverged(self.state, f"the loss is {loss.item()}", self)
            return loss

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    transformers.set_seed(seed)
    datasets.disable_progress_bars()
    gpu = torch.cuda.is_available()
    tokenizer = open_tokenizer(base)
    rows, validation = (tokenized(part, tokenizer, base, settings) for part in (dataset.rows, dataset.validation_rows))
    model = open_weights(base, torch.bfloat16 if gpu else torch.float32)
    if model.num_parameters() < SMALL:
        torch.set_num_threads(1)
    if continue_from:
        model = peft.PeftModel.from_pretrained(model, continue_from, is_trainable=True)
    else:
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, task_type="CAUSAL_LM",
            target_modules=lora_targets(check_weights(base), base, settings.target_modules)))
    checkpointing = gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing
    trainer = Watched(
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
            logging_nan_inf_filter=False, report_to="none", disable_tqdm=True))
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _diverged(state: Any, what: str, trainer: Any) -> None:
    """Raises StlError; `state` counts the steps that were finished."""
    rate = trainer.optimizer.param_groups[0]["lr"]
    raise StlError(f"the training diverged in step {state.global_step + 1} of {state.max_steps}: {what}, at learning "
                   f"rate {rate:g} (of {trainer.args.learning_rate:g}); lower the learning rate, or warm up longer. "
                   "Nothing of it is kept")


def tokenized(rows: list[dict[str, Any]], tokenizer: Any, base: Path, settings: LoraSettings) -> list[dict[str, Any]]:
    """Rows as the model sees them: token ids, and labels that ignore what no loss is taken on.

    A row is the prompt as it is served, what the model is to write behind it, and the token that ends a reply.

    Raises ModelError for a tokenizer without chat template, StlError for rows longer than `settings.max_length` (a cut
    row would teach a reply without its score).
    """
    from stl_programs.models.local.chat import end_tokens, generation_settings, prompt_tokens, reply_tokens

    ends, found = end_tokens(base, tokenizer, generation_settings(base)), []
    for row in rows:
        prompt = prompt_tokens(tokenizer, row["prompt"], str(base))
        reply = reply_tokens(tokenizer, row["prompt"], row["completion"][0]["content"], ends, str(base))
        labels = [IGNORED] * len(prompt) + reply if settings.loss == "output" else prompt + reply
        found.append({"input_ids": prompt + reply, "labels": labels})
    if over := [len(row["input_ids"]) for row in found if len(row["input_ids"]) > settings.max_length]:
        raise StlError(f"{len(over)} of {len(found)} rows are longer than max_length={settings.max_length} tokens (the "
                       f"longest: {max(over)}); raise max_length, or drop them with a filter")
    return found


def _targets(folder: Path) -> list[str]:
    """The layers that the adapter in `folder` changes, as its configuration names them."""
    found: list[str] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    return found


def _save(model: Any, base: Path, folder: Path) -> None:
    """Weights and configuration, the same bytes from the same training on every machine: so is the adapter's name."""
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base.name
    file.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
