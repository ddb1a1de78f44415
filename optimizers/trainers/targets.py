"""The layers that a LoRA changes, found from the model itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stl_programs.errors import ModelError


def lora_targets(model: Any, base: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The names of the layers to tune: those `wanted`, else every linear layer but the output head, as PEFT has it.

    Args:
        model: the base, with or without its numbers ("meta"); it is changed, so that it serves nothing else.

    Names are the last parts of the layers' own ("q_proj") where these mean the same layers, else the whole of them.
    Raises ModelError where `wanted` names no layer, or there is none that can be tuned.
    """
    import peft
    import torch

    linear, layers = _linear(model), [name for name, _ in model.named_modules()]
    for name in wanted or ():
        if not any(layer == name or layer.endswith(f".{name}") for layer in layers):
            raise ModelError(f"target_modules={list(wanted or ())}: {base} has no layer {name!r}; its linear layers "
                             f"are {', '.join(sorted(set(map(_last, linear)))) or 'none'}. Leave "
                             "target_modules out to tune all of them")
    if not wanted and not linear:
        raise ModelError(f"{base} has no linear layer that a LoRA can tune; tune a model of another architecture")
    short = set(map(_last, linear))
    meant = {layer for layer in layers if _last(layer) in short}
    targets = sorted(wanted or (short if meant == linear else linear))
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, task_type="CAUSAL_LM"))
    except Exception as error:  # what peft says of layers that it does not change
        line = " ".join(str(error).split())[:300]
        raise ModelError(f"a LoRA cannot tune {', '.join(targets)} of {base}: {line}; name others by "
                         "LoraSettings(target_modules=...)") from error
    return targets


def _linear(model: Any) -> set[str]:
    """The linear layers but the output head."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {name for name, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head}


def _last(name: str) -> str:
    return name.rpartition(".")[2]
