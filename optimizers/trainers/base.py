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
from stl_programs.models.artifacts import PROVENANCE, adapter_hash, weights_hash
from stl_programs.secrets import cleaned

LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets")
Progress = Callable[[int, int], None]
"""Called with (step, steps)."""


def check_libraries() -> None:
    """Raises ModelError where what a training needs is not installed."""
    need("a training", *LIBRARIES, error=ModelError)


class Trainer(ABC):
    """Turns rows into a LoRA adapter. A subclass writes `fit`, and is found by its `kind`.

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

    def train(self, dataset: Dataset, base: Path, out: Path, *, seed: int = 0, continue_from: Path | None = None,
              provenance: dict[str, Any] | None = None, progress: Progress | None = None) -> dict[str, Any]:
        """Fine-tune a LoRA on `dataset` and write it to `out` (safetensors, config, provenance).

        Args:
            base: directory of the base model; its chat template renders the rows, as in serving.
            out: appears only when the training has finished. If it is there from the same data, base and settings, it
                is kept and nothing is trained.
            continue_from: an adapter of the same base and rank to start from, instead of a fresh one.

        Returns the provenance, with the losses. Raises AdapterError where `out` holds another training's adapter or
        `continue_from` does not fit, ModelError for a base without chat template, StlError for rows it cannot train on.
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
        if out.exists():
            return self._finished(out, record)
        check_libraries()
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        record |= self.fit(dataset, base, partial, seed=seed, continue_from=continue_from, progress=progress)
        (partial / PROVENANCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.rename(partial, out)
        return record

    def _finished(self, out: Path, record: dict[str, Any]) -> dict[str, Any]:
        """The provenance of the adapter at `out`, if it is the one that `record` describes."""
        if not (out / PROVENANCE).is_file():
            raise AdapterError(f"{out} is there and is no adapter of this project; choose another directory")
        found: dict[str, Any] = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
        defaults = asdict(type(self.settings)())
        found["settings"] = defaults | found.get("settings", {})  # a field it lacks is younger than it
        if any(found.get(key) != record[key] for key in record if key != "stl" or "stl" in found):
            raise AdapterError(f"{out} holds an adapter of another training; choose another run directory")
        return found
