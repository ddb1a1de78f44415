"""Replies that repeat a key: servers that echo a request's headers, and models that were shown one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from stl_programs.models.base import Reply
from stl_programs.secrets import MASK, cleaned, masked, spans


def without_echoes(reply: Reply) -> Reply:
    """`reply` with every secret masked, in texts and in tokens: so nothing that is made of it can show one."""
    logprobs = reply.logprobs
    if logprobs is not None:
        logprobs = [_tokens(draw) for draw in logprobs]
    texts, ended, thoughts = cleaned((reply.texts, reply.finish_reasons, reply.thoughts))
    if texts is reply.texts and ended is reply.finish_reasons and thoughts is reply.thoughts and (
            logprobs is None or all(a is b for a, b in zip(logprobs, reply.logprobs or [], strict=True))):
        return reply
    return dataclasses.replace(reply, texts=texts, finish_reasons=ended, thoughts=thoughts, logprobs=logprobs)


def _tokens(draw: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """As many tokens, of which those that a secret is made of say nothing."""
    text = "".join(token for token, _ in draw)
    if masked(text) == text:
        return draw
    found, start = list[tuple[str, float]](), 0
    hidden: Sequence[tuple[int, int]] = spans(text)
    for token, logprob in draw:
        end = start + len(token)
        touched = any(start < last and first < end for first, last in hidden)
        found.append((MASK if touched else token, logprob))
        start = end
    return found
