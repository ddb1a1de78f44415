"""What a model has read: rows of keys and values; prompts of all lengths together, shared beginnings read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

SHARED = 16
"""Fewest tokens that prompts must share to be read once for all of them."""
SAVED = 0.1
"""Least part of the tokens still to be read that one more pass over shared beginnings has to save."""
CHUNK = 4096
"""Most tokens, padding included, read in one pass; a longer prompt has a pass of its own."""
GROWTH = 16
"""Tokens of room behind keys and values: a step writes in place, where a plain cache copies everything."""


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, [B, heads, T, head size], as views of buffers with room behind them."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any,
               **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys = self.key_room = key_states[:, :, :0]
            self.values = self.value_room = value_states[:, :, :0]
        assert self.keys is not None and self.values is not None
        old = self.keys.shape[2]
        new = old + key_states.shape[2]
        if new > self.key_room.shape[2]:
            rows = len(self.keys)
            self.key_room, self.value_room = _room(self.keys, rows, new), _room(self.values, rows, new)
            self.key_room[:, :, :old], self.value_room[:, :, :old] = self.keys, self.values
        self.key_room[:, :, old:new], self.value_room[:, :, old:new] = key_states, value_states
        self.keys, self.values = self.key_room[:, :, :new], self.value_room[:, :, :new]
        return self.keys, self.values

    @classmethod
    def stacked(cls, pieces: Sequence[tuple[Any, torch.Tensor]], length: int) -> GrowingLayer:
        """The chosen rows of each (layer or None for an empty one, rows), one below the other.

        Of each, the last `length` columns; shorter ones are aligned at the end.
        """
        made, total = cls(), sum(len(rows) for _, rows in pieces)
        like = next(layer for layer, _ in pieces if layer is not None)
        made.lazy_initialization(like.keys, like.values)
        made.key_room, made.value_room = _room(like.keys, total, length), _room(like.values, total, length)
        first = 0
        for layer, rows in pieces:
            for name, room in (("keys", made.key_room), ("values", made.value_room)):
                source = getattr(layer or like, name)
                width = min(source.shape[2], length) if layer else 0
                part = room[first:first + len(rows)]
                part[:, :, :length - width] = 0  # masked columns are multiplied by zero, so they must be finite
                if width:
                    torch.index_select(source[:, :, -width:], 0, rows, out=part[:, :, length - width:length])
            first += len(rows)
        made.keys, made.values = made.key_room[:, :, :length], made.value_room[:, :, :length]
        return made


def _room(like: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    return like.new_empty(rows, like.shape[1], length + GROWTH, like.shape[3])


@dataclass
class Rows:
    """What was read of B texts, with padding anywhere: `mask` [B, T] is True at tokens."""

    cache: Cache
    mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def read(self, model: Any, tokens: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Read `tokens` [B, Q]; `real` [B, Q] is False at padding. Returns the logits at the last column, [B, V]."""
        if not self.cache.layers:
            depth = model.config.get_text_config().num_hidden_layers
            self.cache = Cache(layers=[GrowingLayer() for _ in range(depth)])
        positions = (self.mask.sum(1, keepdim=True) + real.cumsum(1) - 1).clamp(min=0)
        self.mask = torch.cat([self.mask, real], 1)
        logits: torch.Tensor = model(
            input_ids=tokens, attention_mask=self.mask, position_ids=positions, past_key_values=self.cache,
            use_cache=True, logits_to_keep=1).logits
        return logits[:, -1].float()

    @staticmethod
    def empty(count: int) -> Rows:
        return Rows(Cache(layers=[]), torch.zeros(count, 0, dtype=torch.bool))

    @staticmethod
    def stacked(pieces: Sequence[tuple[Rows, Sequence[int]]]) -> Rows:
        """Copies of the chosen rows of each piece, one below the other, without columns that none of them needs."""
        chosen = [(rows, torch.tensor(index, dtype=torch.long)) for rows, index in pieces]
        masks = [rows.mask[index] for rows, index in chosen]
        length = max(_width(mask) for mask in masks)
        if not length:
            return Rows.empty(sum(len(mask) for mask in masks))
        depth = max(len(rows.cache.layers) for rows, _ in chosen)
        layers = [GrowingLayer.stacked([(rows.cache.layers[i] if rows.cache.layers else None, index)
                                        for rows, index in chosen], length) for i in range(depth)]
        aligned = [torch.nn.functional.pad(mask, (length - mask.shape[1], 0)) for mask in masks]
        return Rows(Cache(layers=layers), torch.cat(aligned))


def _width(mask: torch.Tensor) -> int:
    """Columns from the first that holds a token to the last."""
    used = mask.any(0)
    return len(used) - int(used.int().argmax()) if used.any() else 0


Level = list[tuple[int, list[int]]]
"""One pass: for each of its rows, the row of the pass before that it goes on from, and the tokens to read."""


def levels(prompts: Sequence[list[int]]) -> list[Level]:
    """The passes that read distinct `prompts`, shared beginnings once; the rows of the last pass are the prompts."""
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    shared = [_common(prompts[a], prompts[b]) for a, b in pairwise(order)]
    made: list[Level] = []
    spans = [(0, len(order), 0)]  # places in `order` from, to; tokens that were read of all between
    while True:
        level, parts = list[tuple[int, list[int]]](), list[tuple[int, int, int]]()
        for row, (low, high, read) in enumerate(spans):
            for start, end in _runs(shared, low, high, read + SHARED):
                least = min([*shared[start:end - 1], *(len(prompts[i]) - 1 for i in order[start:end])])
                until = least if end - start > 1 else read
                level.append((row, prompts[order[start]][read:until]))
                parts.append((start, end, until))
        saved = sum((end - start - 1) * len(tokens) for (start, end, _), (_, tokens) in zip(parts, level, strict=True))
        if saved < SAVED * sum(len(prompts[i]) - read for low, high, read in spans for i in order[low:high]):
            break
        made.append(level)
        spans = parts
    last: Level = [(0, [])] * len(prompts)
    for row, (low, high, read) in enumerate(spans):
        for i in order[low:high]:
            last[i] = (row, prompts[i][read:])
    return [*made, last]


def _common(a: list[int], b: list[int]) -> int:
    """How many tokens two prompts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _runs(shared: Sequence[int], low: int, high: int, least: int) -> list[tuple[int, int]]:
    """Cut [low, high) wherever neighbours share fewer than `least` tokens."""
    cuts = [low, *(i + 1 for i in range(low, high - 1) if shared[i] < least), high]
    return list(pairwise(cuts))


@dataclass
class Piece:
    """A part of the rows of a pass: which of them it holds, and the logits at their last tokens, [rows, V]."""

    numbers: list[int]
    rows: Rows
    logits: torch.Tensor


def prefill(model: Any, prompts: Sequence[list[int]]) -> list[Piece]:
    """Read distinct prompts, each of at least one token. `numbers` of the pieces are places in `prompts`."""
    above, place = Rows.empty(1), {0: 0}
    *first, last = levels(prompts)
    for level in first:
        pieces = _read(model, level, above, place)
        place = {number: row for row, number in enumerate(number for piece in pieces for number in piece.numbers)}
        above = Rows.stacked([(piece.rows, range(len(piece.rows))) for piece in pieces])
    return _read(model, last, above, place)


def _read(model: Any, level: Level, above: Rows, place: dict[int, int]) -> list[Piece]:
    """One pass, in chunks; `place` says which row of `above` is which row of the pass before."""
    pieces = []
    for numbers in _chunks([len(tokens) for _, tokens in level]):
        rows = Rows.stacked([(above, [place[level[i][0]] for i in numbers])])
        width, logits = len(level[numbers[0]][1]), torch.empty(0)
        if width:
            pads = [[0] * (width - len(level[i][1])) for i in numbers]
            tokens = torch.tensor([pad + level[i][1] for i, pad in zip(numbers, pads, strict=True)])
            real = torch.arange(width) >= torch.tensor([[len(pad)] for pad in pads])
            logits = rows.read(model, tokens, real)
        pieces.append(Piece(numbers, rows, logits))
    return pieces


def _chunks(lengths: Sequence[int]) -> list[list[int]]:
    """Rows from the longest to the shortest, in parts of like length and at most CHUNK tokens, padding included."""
    parts: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        width = lengths[parts[-1][0]] if parts else 0
        if not parts or width * (len(parts[-1]) + 1) > CHUNK or width - lengths[i] > max(lengths[i], SHARED):
            parts.append([])
        parts[-1].append(i)
    return parts
