"""A model directory on disk, opened when it is first needed: tokenizer, base, and bases with an adapter merged in."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from stl_programs.errors import ModelError, OutOfRange
from stl_programs.models.base import Messages
from stl_programs.models.local.alone import draws_together
from stl_programs.models.local.chat import end_tokens, generation_settings, open_tokenizer, prompt_tokens
from stl_programs.models.local.merging import Adapter, merged
from stl_programs.models.local.reading import Reading, follows_length, reading, stretch
from stl_programs.models.local.rules import Rules
from stl_programs.models.local.weights import one_line, open_weights

MERGED = 8
"""Adapters kept merged into copies of the base; another one takes the place of the least recently used."""


class ModelDirectory:
    """The models of one directory, called `name` in messages. Whatever it cannot do raises ModelError."""

    def __init__(self, name: str, directory: Path):
        self.name, self.directory = name, directory
        self._merged: OrderedDict[Adapter, Any] = OrderedDict()
        self._opening = threading.RLock()

    def model(self, adapter: Adapter | None = None) -> Any:
        """The base in float32, or the base with an adapter merged in."""
        with self._opening:
            _ = self.tokenizer, self.ends, self.rules, self._reading, self.draws_together
            if adapter is None:
                return self._base
            if adapter not in self._merged:
                self._merged[adapter] = merged(self._base, adapter)
            self._merged.move_to_end(adapter)
            while len(self._merged) > MERGED:
                self._merged.popitem(last=False)
            return self._merged[adapter]

    def forget(self, adapter: Adapter) -> None:
        """Free the copy that `adapter` is merged into."""
        with self._opening:
            self._merged.pop(adapter, None)

    def forked(self) -> bool:
        """In a child process: whether the directory was just being opened when it was forked."""
        torn = not self._opening.acquire(blocking=False)
        self._opening = threading.RLock()
        return torn

    def encode(self, messages: Messages) -> list[int]:
        """The tokens of a chat, up to where the reply begins. Raises OutOfRange where the vocabulary lacks one."""
        tokens = prompt_tokens(self.tokenizer, messages, self.name)
        if not 0 < len(tokens) < self.context:
            raise ModelError(f"a prompt of {len(tokens)} tokens; the context of {self.name} holds {self.context} with "
                             "the reply: shorten what the prompt shows, or take a model of a longer context")
        if max(tokens) >= self._vocabulary:
            raise OutOfRange(f"{self.name} has no embedding for {self.decode([max(tokens)], special=True)!r}: its "
                             f"tokenizer knows more than the {self._vocabulary} tokens of the model")
        return tokens

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """The text of tokens; those with a `special` meaning, like the end, only if asked for."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=not special)
        return text

    @cached_property
    def context(self) -> int:
        """Most tokens of a prompt and its reply."""
        named = (getattr(self._config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
        return int(next((length for length in named if length and length > 0), 2**31) * stretch(self._config))

    @cached_property
    def ends(self) -> set[int]:
        """The tokens that end a reply."""
        return end_tokens(self.directory, self.tokenizer, self._settings)

    @cached_property
    def rules(self) -> Rules:
        """What the directory's generation settings do to a draw."""
        return Rules.of(self.directory, self._settings, self.ends)

    @cached_property
    def token_bytes(self) -> int:
        """Memory of one token's keys and values."""
        config = self._config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(8 * config.num_hidden_layers * heads * size)

    def reads(self, length: int) -> Reading:
        """How a prompt is read that is `length` tokens long with its reply."""
        return "alone" if length >= self._even else self._reading

    @cached_property
    def draws_together(self) -> bool:
        """Whether draws of a prompt that is read alone are drawn side by side."""
        if self._reading != "alone":
            return True
        try:
            return draws_together(self._base)
        except Exception as error:  # whatever a model trips over
            raise ModelError(f"{self.directory} is a {self._config.model_type} model, on which transformers' generate "
                             f"fails in this process: {one_line(error)}; serve it as hosted_vllm/NAME") from error

    @cached_property
    def _reading(self) -> Reading:
        return reading(self._base, self.context)

    @cached_property
    def _even(self) -> int:
        """The length from which on a text's beginning is read otherwise."""
        return follows_length(self._config, self.context + 1)

    @cached_property
    def _vocabulary(self) -> int:
        return int(self._base.get_input_embeddings().weight.shape[0])

    @cached_property
    def _settings(self) -> Any:
        return generation_settings(self.directory)

    @cached_property
    def tokenizer(self) -> Any:
        return open_tokenizer(self.directory)

    @cached_property
    def _base(self) -> Any:
        model = open_weights(self.directory).eval().requires_grad_(False)
        model.generation_config = GenerationConfig()  # what it said is in the rules
        return model

    @property
    def _config(self) -> Any:
        return self._base.config.get_text_config()

