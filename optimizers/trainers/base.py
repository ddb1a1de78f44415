"""What every trainer shares: rows in, an adapter with its provenance out; the same training is never done twice."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from optimizers.data.rows import Dataset
from stl_programs.errors import AdapterError, ModelError, StlError
from stl_programs.extras import need
from stl_programs.models.adapters import read_provenance
from stl_programs.models.artifacts import PROVENANCE, adapter_hash, weights_hash
from stl_programs.secrets import cleaned

LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets")
Progress = Callable[[int, int], None]
"""Called with (step, steps)."""


def check_libraries() -> None:
    """Raises ModelError where what a training needs is not installed."""
    need("a training", *LIBRARIES, error=ModelError)


class Trainer(ABC):
    """Turns rows into a LoRA adapter. A subclass writes `fit`, and is found by its `kind`; it may add to `check`.

    Args:
        settings: a dataclass; every field of it is part of what makes a training the same.
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Trainer]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Trainer.kinds[cls.kind] = cls

    def __init__(self, settings: Any):
        self.settings = settings

    @abstractmethod
    def fit(self, dataset: Dataset, base: Path, folder: Path, *, seed: int, continue_from: Path | None,
            progress: Progress | None) -> dict[str, Any]:
        """Train, and write adapter_config.json and adapter_model.safetensors to `folder`; its losses and steps."""

    def check(self, base: Path) -> None:
        """Raises ModelError where the model directory `base` cannot be trained; looks at its weights' headers alone."""
        check_libraries()
        from stl_programs.models.local.chat import end_tokens, generation_settings, open_tokenizer
        from stl_programs.models.local.weights import read_config

        config = read_config(base)
        if getattr(config, "quantization_config", None):
            raise ModelError(f"{base} is quantised (quantization_config in its config.json), and a LoRA is trained on "
                             "and merged into whole weights; take the model's unquantised directory")
        end_tokens(base, open_tokenizer(base), generation_settings(base))
        self.check_model(base)

    def check_model(self, base: Path) -> None:
        """Raises ModelError where the weights lack a part of the model."""
        from stl_programs.models.local.weights import check_weights

        check_weights(base)

    def train(self, dataset: Dataset, base: Path, out: Path, *, seed: int = 0, continue_from: Path | None = None,
              provenance: dict[str, Any] | None = None, progress: Progress | None = None) -> dict[str, Any]:
        """Fine-tune a LoRA on `dataset` and write it to `out` (safetensors, config, provenance).

        Args:
            base: directory of the base model; its chat template renders the rows, as in serving.
            out: appears only when the training has finished. If it is there from the same data, base and settings, it
                is kept and nothing is trained.
            continue_from: an adapter of the same base and rank to start from, instead of a fresh one.

        Returns the provenance, with the losses. Raises AdapterError where `out` holds another training's adapter or
        `continue_from` does not fit, ModelError as `check` does, StlError for rows it cannot train on and for a
        training that diverges.
        """
        if not dataset.rows:
            raise StlError(f"no row to train {out} on; collect more rollouts or loosen the filters")
        record = cleaned({
            **(provenance or {}), "base_sha256": weights_hash(base), "data_sha256": dataset.manifest["sha256"],
            "signature": dataset.manifest["signature"], "variant": dataset.manifest["variant"],
            "format": dataset.manifest["format"], "settings": asdict(self.settings), "seed": seed,
            "continue_from": adapter_hash(continue_from) if continue_from else None,
            "libraries": {name: version(name) for name in LIBRARIES}})
        if self.kind != "sft":
            record["trainer"] = self.kind
        record = json.loads(json.dumps(record))
        if out.exists():
            return self._finished(out, record)
        self.check(base)
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        record |= self.fit(dataset, base, partial, seed=seed, continue_from=continue_from, progress=progress)
        _check_finite(partial)
        (partial / PROVENANCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.rename(partial, out)
        return record

    def _finished(self, out: Path, record: dict[str, Any]) -> dict[str, Any]:
        """The provenance of the adapter at `out`, if it is the one that `record` describes."""
        if not (out / PROVENANCE).is_file():
            raise AdapterError(f"{out} is there and is no adapter of this project; choose another directory")
        found = read_provenance(out).model_dump(exclude_unset=True)
        defaults = json.loads(json.dumps(asdict(type(self.settings)())))
        found["settings"] = defaults | found.get("settings", {})  # a field it lacks is younger than it
        if any(found.get(key) != record[key] for key in record if key != "stl" or "stl" in found):
            raise AdapterError(f"{out} holds an adapter of another training; choose another run directory")
        return found


def _check_finite(adapter: Path) -> None:
    """Raises StlError for an adapter of which a number is NaN or infinite."""
    import torch
    from safetensors.torch import load_file

    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        if not torch.isfinite(tensor).all():
            raise StlError(f"the training diverged: {name} of the adapter holds numbers that are not finite, and it is "
                           "not kept; lower the learning rate")
