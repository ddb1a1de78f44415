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
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name in wanted or ():
        if not any(layer == name or layer.endswith(f".{name}") for layer, _ in model.named_modules()):
            raise ModelError(f"target_modules={list(wanted or ())}: {base} has no layer {name!r}; its linear layers "
                             f"are {', '.join(_linear(model)) or 'none'}. Leave target_modules out to tune all of them")
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned = peft.get_peft_model(model, peft.LoraConfig(
                target_modules=list(wanted) if wanted else "all-linear", task_type="CAUSAL_LM"))
    except Exception as error:  # what peft says of a model without such layers, or with layers of another kind
        line = " ".join(str(error).split())[:300]
        raise ModelError(f"{base} has no layer that a LoRA can tune"
                         f"{f' by target_modules={list(wanted)}' if wanted else ''}: {line}") from error
    if wanted:
        return sorted(wanted)
    plain = tuned.get_base_model()
    changed = {name for name, module in plain.named_modules() if isinstance(module, BaseTunerLayer)}
    if not changed:
        raise ModelError(f"{base} has no linear layer that a LoRA can tune; tune a model of another architecture")
    short = {name.rpartition(".")[2] for name in changed}
    meant = {name for name, _ in plain.named_modules() if name.rpartition(".")[2] in short}
    return sorted(short if meant == changed else changed)


def _linear(model: Any) -> list[str]:
    import torch
    from transformers.pytorch_utils import Conv1D

    return sorted({name.rpartition(".")[2] for name, module in model.named_modules()
                   if isinstance(module, (torch.nn.Linear, Conv1D))})
