"""A tokenizer with its chat template: the same prompt, token for token, where a model is served and where tuned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, GenerationConfig

from stl_programs.errors import ModelError, OutOfRange
from stl_programs.models.base import Messages
from stl_programs.models.local.weights import OWN, one_line, read_config

MARK = "3141592653"
"""A text that no template writes by itself."""


def open_tokenizer(directory: Path) -> Any:
    """The directory's tokenizer. Raises ModelError where it cannot be read or does not write chats."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, **OWN)
    except Exception as error:  # whatever a tokenizer class raises
        raise ModelError(f"{directory} has no tokenizer that can be read: {one_line(error)}") from error
    if tokenizer.chat_template is None:
        raise ModelError(f"{directory} has no chat template; add one to its tokenizer")
    for messages in ([_says("user", MARK)], [_says("system", "You judge."), _says("user", MARK)]):
        if MARK not in (text := prompt_text(tokenizer, messages, str(directory))):
            raise ModelError(f"the chat template of {directory} writes {text[:80]!r} and leaves out what the user says;"
                             " mend chat_template.jinja")
    return tokenizer


def prompt_text(tokenizer: Any, messages: Messages, name: str) -> str:
    """A chat up to where the reply begins.

    What a system message says goes into the first turn of the user's where the template knows no system. Raises
    ModelError where it refuses the messages all the same.
    """
    try:
        text = _rendered(tokenizer, messages)
    except TemplateError as error:
        if messages[0]["role"] != "system":
            raise ModelError(f"the chat template of {name} refuses the messages: {one_line(error)}") from error
        text = None
    except Exception as error:  # whatever a template trips over
        raise ModelError(f"the chat template of {name} cannot be used: {one_line(error)}") from error
    if messages[0]["role"] != "system" or (text is not None and messages[0]["content"].strip() in text):
        return text or ""
    system, *rest = messages
    if rest and rest[0]["role"] == "user":
        rest[0] = rest[0] | {"content": f"{system['content']}\n\n{rest[0]['content']}"}
    else:
        rest.insert(0, _says("user", system["content"]))
    return prompt_text(tokenizer, rest, name)


def encode(tokenizer: Any, text: str, name: str) -> list[int]:
    """The tokens of a text. Raises OutOfRange where the vocabulary lacks a part of it."""
    if not tokenizer.is_fast:
        tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.unk_token_id in tokens and (tokenizer.unk_token or "") not in text:
            raise OutOfRange(f"{name} has no token for a part of {text!r}")
        return tokens
    try:
        read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except Exception as error:  # a list of words without one for all others
        raise OutOfRange(f"{name} cannot read {text[-80:]!r}: {one_line(error)}") from error
    tokens, spans = read["input_ids"], read["offset_mapping"]
    unknown, loses = _unknown(tokenizer)
    if not unknown.keys().isdisjoint(tokens):
        for token, (start, end) in zip(tokens, spans, strict=True):
            if token in unknown and text[start:end].strip() != unknown[token]:
                raise OutOfRange(f"{name} has no token for {text[start:end]!r}")
    if loses:
        read_of = {place for start, end in spans for place in range(start, end)}
        if lost := next((sign for i, sign in enumerate(text) if sign.isalnum() and i not in read_of), None):
            raise OutOfRange(f"{name} has no token for {lost!r}")
    return tokens


@lru_cache(maxsize=32)
def _unknown(tokenizer: Any) -> tuple[dict[int, str], bool]:
    """The tokens that stand for what is unknown, with their texts; and whether unknown signs leave no token at all."""
    inner = tokenizer.backend_tokenizer
    named = {tokenizer.unk_token, getattr(inner.model, "unk_token", None)} - {None}
    unknown = {token: text for text in named if (token := inner.token_to_id(text)) is not None}
    vocabulary = inner.get_vocab()
    every_byte = "ByteLevel" in f"{inner.pre_tokenizer} {inner.normalizer}" and all(
        letter in vocabulary for letter in ByteLevel.alphabet())
    return unknown, not unknown and not every_byte and not getattr(inner.model, "byte_fallback", False)


def prompt_tokens(tokenizer: Any, messages: Messages, name: str) -> list[int]:
    """A chat as tokens, up to where the reply begins."""
    return encode(tokenizer, prompt_text(tokenizer, messages, name), name)


def reply_tokens(tokenizer: Any, messages: Messages, reply: str, ends: set[int], name: str) -> list[int]:
    """What a model that was asked `messages` writes when it says `reply`: its tokens, and the one that ends them.

    The end is the first of `ends` that the template puts behind a reply, else the tokenizer's own.
    """
    tokens = encode(tokenizer, reply, name)
    if found := ends.intersection(tokens):
        raise ModelError(f"the reply {reply!r} holds the end token of {name}, {tokenizer.decode(sorted(found)[:1])!r}; "
                         "write it otherwise")
    try:
        behind = _rendered(tokenizer, [*messages, _says("assistant", MARK)], ask=False).rpartition(MARK)[2]
    except Exception:  # a template that writes no replies: nothing stands behind one
        behind = ""
    following = (token for token in tokenizer(behind, add_special_tokens=False)["input_ids"] if token in ends)
    own = tokenizer.eos_token_id if tokenizer.eos_token_id in ends else min(ends)
    return [*tokens, next(following, own)]


def generation_settings(directory: Path) -> GenerationConfig:
    """How the directory says that its model is to be decoded."""
    try:
        if (directory / "generation_config.json").is_file():
            return GenerationConfig.from_pretrained(directory, local_files_only=True)
        return GenerationConfig.from_model_config(read_config(directory))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{directory / 'generation_config.json'} cannot be read: {one_line(error)}") from error


def end_tokens(directory: Path, tokenizer: Any, settings: GenerationConfig) -> set[int]:
    """The tokens that end a reply. Raises ModelError where there is none."""
    named = settings.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}
    if not ends:
        raise ModelError(f"{directory} names no end token, so that no reply would end; add eos_token to its tokenizer")
    return ends


def _rendered(tokenizer: Any, messages: Sequence[dict[str, Any]], ask: bool = True) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    return text


def _says(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
