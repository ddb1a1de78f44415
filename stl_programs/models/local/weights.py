"""The weights of a model directory, all there and finite: looked at by their headers alone, or read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import BaseModel, ValidationError
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from stl_programs.errors import ModelError

INDEX = "model.safetensors.index.json"
OWN: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""What is read is the directory's own: nothing is fetched, and no code that it brings is run."""

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class Index(BaseModel):
    """Which file holds which tensor."""

    weight_map: dict[str, str]


def check_weights(directory: Path) -> Any:
    """The directory's model without its numbers, on torch's "meta" device.

    Raises ModelError where a file is missing, cut short or outside the directory, or where the model that config.json
    describes has tensors that the files lack or hold in another shape. Reads headers only.
    """
    _check_files(directory)
    return _load(directory, torch.float32, device_map="meta")


def open_weights(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The directory's model. Raises ModelError as `check_weights` does, and for numbers that are not finite."""
    _check_files(directory)
    model = _load(directory, dtype)
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"{directory} cannot be used: {name} holds numbers that are not finite (NaN or infinite); "
                             "get the weights again")
    return model


def read_config(directory: Path) -> Any:
    """The directory's config. Raises ModelError where there is none that transformers can read."""
    try:
        return AutoConfig.from_pretrained(directory, **OWN)
    except Exception as error:  # whatever a config class of any architecture raises
        raise ModelError(f"{directory} holds no model that can be read: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an error of a library says, short enough for a message."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _load(directory: Path, dtype: torch.dtype, **options: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, found = AutoModelForCausalLM.from_pretrained(
                directory, dtype=dtype, use_safetensors=True, output_loading_info=True, **OWN, **options)
    except Exception as error:  # whatever an architecture or a way of quantising raises
        raise ModelError(f"{directory} holds no model that can be read: {one_line(error)}") from error
    if getattr(model.config, "quantization_config", None) and getattr(model, "hf_quantizer", None) is None:
        raise ModelError(f"{directory} is quantised by {model.config.quantization_config!r}, which transformers does "
                         "not know here; take the model's unquantised directory, or serve it as hosted_vllm/NAME")
    if lost := sorted(map(str, {*found["missing_keys"], *found["mismatched_keys"]})):
        raise ModelError(f"{directory} holds no tensor for {len(lost)} of the names in the model that its config.json "
                         f"describes ({', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}); config.json and the "
                         "safetensors files must be of one model: copy the whole directory again")
    return model


def _check_files(directory: Path) -> None:
    if not any(directory.glob("*.safetensors")):
        raise ModelError(f"{directory} holds no safetensors file; save the model with safe_serialization")
    if (directory / "adapter_config.json").is_file():
        raise ModelError(f"{directory} holds an adapter beside its model (adapter_config.json), and transformers would "
                         "mix the two; move the adapter elsewhere and register it by a version")
    if not (directory / "model.safetensors").is_file() and (directory / INDEX).is_file():
        for file, names in _shards(directory).items():
            if Path(file).name != file or "\\" in file:
                raise ModelError(f"{directory / INDEX} names {file!r}, which is not in the directory; an index names "
                                 "files beside it")
            if not (directory / file).is_file():
                raise ModelError(f"{directory} lacks {file}, which {INDEX} names; copy the whole directory again")
            if lost := sorted(names - _names(directory / file)):
                raise ModelError(f"{directory / file} lacks {len(lost)} tensors that {INDEX} says it holds, the first: "
                                 f"{lost[0]}; copy the whole directory again")
    elif (directory / "model.safetensors").is_file():
        _names(directory / "model.safetensors")


def _shards(directory: Path) -> dict[str, set[str]]:
    """The tensors of every file that the index names."""
    try:
        index = Index.model_validate_json((directory / INDEX).read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(f"{directory / INDEX} is no index of safetensors files: {one_line(error)}") from error
    shards: dict[str, set[str]] = {}
    for name, file in index.weight_map.items():
        shards.setdefault(file, set()).add(name)
    return shards


def _names(file: Path) -> set[str]:
    """The tensors of a file, by its header; a file that is shorter than its header says is refused."""
    try:
        with safe_open(file, "pt") as opened:
            return set(opened.keys())
    except Exception as error:
        raise ModelError(f"{file.parent} holds no model that can be read: {file.name} is damaged or cut short "
                         f"({one_line(error)}); copy it again") from error
