"""dspy's fine-tuning contract over our trainer: `lm.finetune(...)` and dspy's own fine-tuning optimizers make LoRAs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import dspy
from dspy.clients.provider import Provider, TrainingJob
from dspy.clients.utils_finetune import TrainDataFormat, TrainingStatus

from optimizers.data.rows import Dataset
from optimizers.trainers.sft import LoraSettings, train_adapter
from stl_programs import models
from stl_programs.errors import ModelError, StlError
from stl_programs.models import Model, adapter_hash, base_name

_one_at_a_time = threading.Lock()
"""Trainings share the random state of the process: two side by side would spoil each other's seed."""


class LoraJob(TrainingJob):
    """A training in a thread. `result()` waits for it: the LM that answers with the adapter, or the error object.

    `steps`: optimizer steps (done, in all); (0, 0) before the first.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.steps = (0, 0)
        self._cancelled = threading.Event()

    def report(self, step: int, steps: int) -> None:
        self.steps = step, steps
        if self._cancelled.is_set():
            raise StlError(f"the training was cancelled after step {step} of {steps}; nothing of it is kept")

    def cancel(self) -> bool:
        """Stop after the step in hand; `result()` is then an StlError. False where the training is over."""
        if self.done():
            return False
        self._cancelled.set()
        return True

    def status(self) -> TrainingStatus:
        if self.done():
            failed = TrainingStatus.cancelled if self._cancelled.is_set() else TrainingStatus.failed
            return failed if isinstance(self.result(), Exception) else TrainingStatus.succeeded
        return TrainingStatus.running if self.steps[1] else TrainingStatus.pending

    def set_result(self, result: Any) -> None:
        super().set_result(_rebound(result))


class LoraProvider(Provider):
    """Trains a LoRA from chat rows and serves it as a new version of the model's name, BASE@NAME-HASH.

    The last message of a row is what is trained; those before it, demonstrations included, are the prompt. A model that
    is an adapter already is trained on from that adapter. The same rows and settings are never trained twice.

    Args:
        run_dir: one folder of data and one of adapter for every training.
        settings: of the training; `train_kwargs` of a call replace single fields, and `seed`.
        weights: directory of the base weights, where the model itself is served elsewhere (`hosted_vllm/NAME`).
        lm: the model that serves the adapter, where that is an object (`stl_programs.models.doors.dspy_lm.lm`, with an
            api_base); by default the one that the model string names.
        name: what the version is called.

    Example:
        >>> lm.provider = LoraProvider("runs/tuned", settings=LoraSettings(epochs=3))
        >>> tuned = lm.finetune(rows, TrainDataFormat.CHAT, {"learning_rate": 3e-3}).result()
    """

    def __init__(self, run_dir: str | Path = "runs/finetune", *, settings: LoraSettings | None = None,
                 weights: str | Path | None = None, lm: dspy.BaseLM | Model | None = None, name: str = "tuned",
                 seed: int = 0):
        super().__init__()
        self.finetunable, self.TrainingJob = True, LoraJob
        self.run_dir, self.settings, self.lm = Path(run_dir), settings or LoraSettings(), lm
        self.weights, self.name, self.seed = Path(weights) if weights else None, name, seed

    def finetune(self, job: TrainingJob | None, model: str, train_data: Sequence[dict[str, Any]],  # type: ignore[override]
                 train_data_format: TrainDataFormat | str | None, train_kwargs: dict[str, Any] | None = None) -> str:
        """Train, register, and return the adapter's name.

        Raises StlError for rows or options it cannot train on, ModelError where the weights of `model` are not on this
        disk, AdapterError for an adapter that the model cannot serve.
        """
        settings, seed = self._settings(train_kwargs or {})
        dataset = chat_dataset(train_data, train_data_format)
        weights = self.weights or models.load(self.lm or base_name(model)).weights()
        if weights is None:
            raise ModelError(f"{model} cannot be tuned from here; pass LoraProvider(weights=DIRECTORY) with the "
                             "model's config, safetensors and tokenizer")
        start = models.adapter_path(model) if models.is_adapter(model) else None
        about = [model, dataset.manifest["sha256"], asdict(settings), seed]
        folder = self.run_dir / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:10]
        with _one_at_a_time:
            dataset.save(folder / "data")
            train_adapter(dataset, weights, folder / "adapter", settings, seed=seed, continue_from=start,
                          provenance={"base": base_name(model)},
                          progress=job.report if isinstance(job, LoraJob) else None)
        served = f"{base_name(model)}@{self.name}-{adapter_hash(folder / 'adapter')[:10]}"
        models.register_adapter(served, folder / "adapter", self.lm)
        return served

    def _settings(self, train_kwargs: dict[str, Any]) -> tuple[LoraSettings, int]:
        options = {"seed": self.seed, **asdict(self.settings)}
        if unknown := sorted(set(train_kwargs) - set(options)):
            names = ", ".join(field.name for field in fields(LoraSettings))
            raise StlError(f"train_kwargs has {', '.join(unknown)}; there is seed, {names}")
        options |= train_kwargs
        return LoraSettings(**{name: value for name, value in options.items() if name != "seed"}), options["seed"]


def chat_dataset(train_data: Sequence[dict[str, Any]], train_data_format: TrainDataFormat | str | None) -> Dataset:
    """dspy's chat rows, {"messages": [...]}, as a Dataset. Raises StlError for any other format or row."""
    if train_data_format not in (None, TrainDataFormat.CHAT):
        wanted = getattr(train_data_format, "value", train_data_format)
        raise StlError(f"train_data_format={wanted!r}: LoRAs are trained on 'chat' rows, {{'messages': [...]}}")
    if not train_data:
        raise StlError("train_data is empty; pass at least one row, or look at why no call was traced")
    rows = [{"prompt": messages[:-1], "completion": messages[-1:]}
            for messages in (_messages(number, row) for number, row in enumerate(train_data))]
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return Dataset([], rows, [], {"rows": len(rows), "sha256": digest, "signature": None, "variant": None,
                                  "format": None})


def _messages(number: int, row: dict[str, Any]) -> list[dict[str, str]]:
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or len(messages) < 2 or messages[-1].get("role") != "assistant":
        raise StlError(f"row {number} of train_data is no chat that ends with the assistant; a row is {{'messages': "
                       "[..., {'role': 'assistant', 'content': TEXT}]}")
    for message in messages:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise StlError(f"row {number} of train_data has a message without role and text; only text is trained")
    return messages


def _rebound(result: Any) -> Any:
    """An LM of this package's door has an engine for one model: it follows the name. Anything else as it is.

    An engine of one's own has to answer by the model that a request names (`request.model`).
    """
    model = getattr(getattr(result, "engine", None), "stl_model", None)
    if model is None or model.name == result.model:
        return result
    from stl_programs.models.doors.dspy_lm import AsyncDoorEngine, DoorEngine

    engine = DoorEngine(models.load(result.model), result.engine.connection)
    return result.copy(engine=engine, async_engine=AsyncDoorEngine(engine))
