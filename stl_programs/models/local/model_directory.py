"""A model directory on disk, opened when it is first needed: tokenizer, base, and bases with an adapter merged in."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from stl_programs.errors import ModelError, OutOfRange
from stl_programs.models.base import Messages
from stl_programs.models.local.merging import Adapter, merged

MERGED = 8
"""Adapters kept merged into copies of the base; another one takes the place of the least recently used."""

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class ModelDirectory:
    """The models of one directory, called `name` in messages. Whatever it cannot do raises ModelError."""

    def __init__(self, name: str, directory: Path):
        self.name, self.directory = name, directory
        self._merged: OrderedDict[Adapter, Any] = OrderedDict()
        self._opening = threading.RLock()

    def model(self, adapter: Adapter | None = None) -> Any:
        """The base in float32, or the base with an adapter merged in."""
        with self._opening:
            _ = self.tokenizer, self.ends
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

    def encode(self, messages: Messages) -> list[int]:
        """The tokens of a chat, up to where the reply begins. Raises OutOfRange where the vocabulary lacks one."""
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ModelError(f"the chat template of {self.name} refuses the messages: {one_line(error)}") from error
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in tokens:
            raise OutOfRange(f"{self.name} has no token for a part of {messages[-1]['content']!r}")
        if not 0 < len(tokens) < self.context:
            raise ModelError(f"a prompt of {len(tokens)} tokens; the context of {self.name} holds {self.context} with "
                             "the reply: shorten what the prompt shows, or take a model of a longer context")
        return tokens

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """The text of tokens; those with a `special` meaning, like the end, only if asked for."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=not special)
        return text

    @cached_property
    def context(self) -> int:
        """Most tokens of a prompt and its reply."""
        return int(getattr(self._config, "max_position_embeddings", None) or 2**31)

    @cached_property
    def ends(self) -> set[int]:
        """The tokens that end a reply."""
        named = self._base.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}
        if not ends:
            raise ModelError(f"{self.directory} names no end token, so that no reply would end; add eos_token to its "
                             "tokenizer")
        return ends

    @cached_property
    def token_bytes(self) -> int:
        """Memory of one token's keys and values."""
        config = self._config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(8 * config.num_hidden_layers * heads * size)

    @cached_property
    def pads(self) -> bool:
        """Whether prompts of several requests may be read together: a window over the last tokens counts padding."""
        return min(getattr(self._config, name, None) or self.context
                   for name in ("sliding_window", "attention_chunk_size")) >= self.context

    @cached_property
    def tokenizer(self) -> Any:
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.directory)
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.directory} has no tokenizer that can be read: {one_line(error)}") from error
        if tokenizer.chat_template is None:
            raise ModelError(f"{self.directory} has no chat template; add one to its tokenizer")
        return tokenizer

    @cached_property
    def _base(self) -> Any:
        if not any(self.directory.glob("*.safetensors")):
            raise ModelError(f"{self.directory} holds no safetensors file; save the model with safe_serialization")
        try:
            model = AutoModelForCausalLM.from_pretrained(self.directory, dtype=torch.float32, use_safetensors=True)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"{self.directory} holds no model that can be read: {one_line(error)}") from error
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or [])
        if model._is_stateful or kinds - {"full_attention", "sliding_attention", "chunked_attention"}:
            raise ModelError(f"{self.directory} is a {model.config.model_type} model, which keeps more than keys and "
                             "values; serve it as hosted_vllm/NAME")
        return model.eval().requires_grad_(False)

    @property
    def _config(self) -> Any:
        return self._base.config.get_text_config()


def one_line(error: Exception) -> str:
    """What an error of a library says, short enough for a message."""
    return " ".join(str(error).split())[:300] or type(error).__name__
