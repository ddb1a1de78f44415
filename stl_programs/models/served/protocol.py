"""OpenAI's chat protocol: the fields that a request's options become, and what a chat completion's choices say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stl_programs.errors import ModelError
from stl_programs.models.base import Reply, ReplyOptions, Request

THOUGHTS = ("reasoning_content", "reasoning")
"""Where servers put what a reasoning model thought, beside a message's content."""


def asked_for(options: ReplyOptions) -> dict[str, Any]:
    """`options` as fields of a chat completion request; none for plain text.

    A schema that any object fits travels as OpenAI's older "json_object".
    """
    fields: dict[str, Any] = {}
    if options.stop:
        fields["stop"] = list(options.stop)
    if options.logprobs:
        fields["logprobs"] = True
    if options.schema == {"type": "object"}:
        fields["response_format"] = {"type": "json_object"}
    elif options.schema is not None:
        fields["response_format"] = {"type": "json_schema", "json_schema": {
            "name": "reply", "schema": options.schema, "strict": True}}
    return fields


def read_reply(choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any] | None, request: Request) -> Reply:
    """The draws and what they cost; without a usage, bounds of it from the bytes, so that no budget is overspent.

    Raises ModelError where log-probabilities were left out, ValueError, KeyError, TypeError or AttributeError for what
    is no chat completion.
    """
    choices = choices[:len(request.seeds)]
    if not choices:
        raise ValueError("no choices")
    messages = [choice["message"] for choice in choices]
    texts = [_text(message.get("content")) for message in messages]
    thoughts = [_thoughts(message) for message in messages]
    if not usage:
        written = sum(len(part.encode(errors="surrogatepass")) for part in (*texts, *thoughts) if part)
        usage = {"prompt_tokens": request.prompt_tokens_bound, "completion_tokens": written}
    logprobs = [_logprobs(choice.get("logprobs"), text) for choice, text in zip(choices, texts, strict=True)
                ] if request.options.logprobs else None
    return Reply(texts, usage["prompt_tokens"], usage["completion_tokens"],
                 (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0, logprobs=logprobs,
                 finish_reasons=[_finish_reason(choice) for choice in choices],
                 thoughts=thoughts if any(thoughts) else None)


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) else None


def _thoughts(message: Mapping[str, Any]) -> str | None:
    return next((found for name in THOUGHTS if (found := _text(message.get(name)))), None)


def _finish_reason(choice: Mapping[str, Any]) -> str | None:
    if choice["message"].get("refusal") and not choice["message"].get("content"):
        return "refusal"
    return _text(choice.get("finish_reason"))


def _logprobs(found: Any, text: str | None) -> list[tuple[str, float]]:
    """The tokens of one choice's `logprobs`. Raises ModelError where they were left out."""
    try:
        return [(str(row["token"]), float(row["logprob"])) for row in found["content"]]
    except (KeyError, TypeError, ValueError):
        if not text:
            return []
        raise ModelError("the reply has no log-probabilities, though they were asked for") from None


def plain(record: Any) -> Any:
    """A pydantic record of LiteLLM's as dicts and lists."""
    return record.model_dump() if hasattr(record, "model_dump") else record
