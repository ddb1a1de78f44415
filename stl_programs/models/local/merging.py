"""LoRA adapters of a model in this process: checked when they are loaded, merged into copies that share the rest."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from stl_programs.errors import AdapterError
from stl_programs.models.adapters import check_adapter, read_config, read_provenance
from stl_programs.models.artifacts import WEIGHTS, weights_hash


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA as it was on disk when it was loaded: what happens to its folder later changes nothing that is served."""

    name: str
    config: Any
    tensors: dict[str, torch.Tensor]


def load_adapter(name: str, path: Path, base: Path) -> Adapter:
    """Read the adapter folder `path`. Raises AdapterError unless it was trained on `base` and fits it."""
    import peft

    trained_on = read_provenance(path).base_sha256
    if trained_on != (own := weights_hash(base)):
        raise AdapterError(f"the adapter {path} was trained on base {trained_on[:12]}; {base} is {own[:12]}")
    check_adapter(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = peft.LoraConfig(**read_config(path).for_peft())
        adapter = Adapter(name, config, load((path / WEIGHTS).read_bytes()))
        expected = _shapes(adapter.config, base)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, SafetensorError) as error:
        line = " ".join(str(error).split())[:300]
        raise AdapterError(f"the adapter {path} does not fit {base}: {line}") from error
    found = {key: tuple(tensor.shape) for key, tensor in adapter.tensors.items()}
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            raise AdapterError(f"the adapter {path} does not fit {base}: {key} is {found.get(key, 'missing')}, by its "
                               f"configuration and the base it would be {expected.get(key, 'missing')}")
        if not torch.isfinite(adapter.tensors[key]).all():
            raise AdapterError(f"the adapter {path} has weights that are no numbers, in {key}; train it again")
    return adapter


def _shapes(config: Any, base: Path) -> dict[str, tuple[int, ...]]:
    """The tensors that an adapter of this configuration has on this base, without any weights."""
    import peft

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
        tuned = peft.get_peft_model(model, copy.deepcopy(config))
    return {key: tuple(tensor.shape) for key, tensor in peft.get_peft_model_state_dict(tuned).items()}


def merged(base: Any, adapter: Adapter) -> Any:
    """`base` with the adapter's changes added in. Tensors that it does not change are the base's own, not copies."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = peft.get_peft_model(sharing(base), copy.deepcopy(adapter.config))
        peft.set_peft_model_state_dict(tuned, adapter.tensors)
        return tuned.merge_and_unload(safe_merge=True).eval()


def sharing(model: Any) -> Any:
    """A copy of `model` whose parameters lie over the same memory: to be replaced, not to be written into."""
    memo = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach(), requires_grad=False))
    return twin
