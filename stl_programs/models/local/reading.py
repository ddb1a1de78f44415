"""How a model can be read: many prompts together, one request after the other, or only as `generate` reads it."""

from __future__ import annotations

from typing import Any, Literal

import torch

from stl_programs.models.local.prefill import Rows, prefill

Reading = Literal["together", "apart", "alone"]
"""In one batch; in a batch of one request's draws; by `generate`, one request at a time."""
KEPT = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers that keep keys and values and nothing else."""
FOLLOWING = {"longrope", "dynamic"}
"""Rotary embeddings whose frequencies depend on the length of the text."""
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "local_attention", "attention_window_size")
"""How configs call the number of last tokens that a layer looks at."""
CLOSE = 1e-3
"""Most difference of logits that rounding may make, for each of their size and absolutely."""


def reading(model: Any, context: int) -> Reading:
    """How `model` is to be read, by what its config says and by trying it on a few tokens."""
    config = model.config.get_text_config()
    if model._is_stateful or set(getattr(config, "layer_types", None) or []) - KEPT:
        return "alone"
    windows = [found for name in WINDOWS if isinstance(found := getattr(config, name, None), int) and found > 0]
    window = min([*windows, context])
    kinds: tuple[Reading, ...] = ("together", "apart") if window >= context else ("apart",)
    return next((kind for kind in kinds if _alike(model, window, kind == "together")), "alone")


def follows_length(config: Any, context: int) -> int:
    """The length of text from which on a model of this config reads its beginning otherwise; `context` for none."""
    following = [part for part in _rope(config) if part.get("rope_type", part.get("type")) in FOLLOWING]
    named = [part.get("original_max_position_embeddings") for part in following]
    named += [getattr(config, name, None) for name in ("original_max_position_embeddings", "max_position_embeddings")]
    return min(filter(None, [*named, context])) if following else context


def stretch(config: Any) -> float:
    """How many times the length of its training a model of this config reads, where its rotary embeddings grow."""
    return max([float(part.get("factor") or 1) for part in _rope(config) if part.get("rope_type") == "dynamic"],
               default=1.0)


def _rope(config: Any) -> list[dict[str, Any]]:
    """The rotary settings of a config: one for all layers, or one for each of their types."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [rope, *(part for part in rope.values() if isinstance(part, dict))]


@torch.inference_mode()
def _alike(model: Any, window: int, together: bool) -> bool:
    """Whether prompts of several lengths, with shared beginnings, are read as each is by a plain pass of its own."""
    size, longest = model.get_input_embeddings().weight.shape[0], 40 if window > 40 else window + 8
    longest = min(longest, getattr(model.config.get_text_config(), "max_position_embeddings", None) or longest) - 2
    if longest < 4:
        return True
    tokens = (torch.arange(longest + 3) * 7 % size).tolist()
    texts = [tokens[:longest], tokens[:longest * 2 // 3] + tokens[1:3], tokens[3:3 + longest // 3], tokens[-2:]]
    try:
        return all(_same(model, group) for group in ([texts] if together else [[text] for text in texts]))
    except Exception:  # a model that does not take positions, masks or caches as others do
        return False


def _same(model: Any, texts: list[list[int]]) -> bool:
    pieces = prefill(model, texts)
    order = [number for piece in pieces for number in piece.numbers]
    rows = Rows.stacked([(piece.rows, range(len(piece.rows))) for piece in pieces])
    texts, logits = [texts[i] for i in order], torch.cat([piece.logits for piece in pieces])
    for _ in range(2):
        plain = torch.cat([model(input_ids=torch.tensor([text]), use_cache=False).logits[:, -1].float()
                           for text in texts])
        if not torch.allclose(logits, plain, rtol=CLOSE, atol=CLOSE):
            return False
        texts = [[*text, token] for text, token in zip(texts, plain.argmax(1).tolist(), strict=True)]
        logits = rows.read(model, torch.tensor([text[-1:] for text in texts]), torch.ones(len(texts), 1).bool())
    return True
