"""OpenAI's chat protocol: the fields that a request's options become, and what a chat completion says.

A reply is parsed by the schemas below, in every shape that servers are known to send. What does not fit is missing
(a text, a token count), or named in the error; it never reaches arithmetic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from stl_programs.errors import ModelError
from stl_programs.models.base import Reply, ReplyOptions, Request
from stl_programs.records import well_formed

MOST_TOKENS = 2**31
"""No request has so many: a count above it is no count."""


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


# What servers send


def _text(found: Any) -> str | None:
    """A text, also one in parts; None for anything else."""
    if isinstance(found, list):
        parts = [part if isinstance(part, str) else part.get("text") for part in found if isinstance(part, (str, dict))
                 and (isinstance(part, str) or part.get("type", "text") in ("text", "output_text"))]
        found = "".join(part for part in parts if isinstance(part, str))
    return well_formed(found) if isinstance(found, str) else None


def _thoughts_in(found: Any) -> str | None:
    """What parts of the kinds "thinking" and "reasoning" hold."""
    if not isinstance(found, list):
        return None
    said = [part.get("thinking") or part.get("text") or part.get("reasoning") for part in found
            if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")]
    return "".join(_text(one) or "" for one in said) or None


def _count(found: Any) -> int | None:
    """A number of tokens; None for what is none."""
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    return found if type(found) is int and 0 <= found <= MOST_TOKENS else None


def _mapping(found: Any) -> Any:
    return found if isinstance(found, Mapping) else {}


def _index(found: Any) -> int | None:
    return found if type(found) is int else None


Text = Annotated[str | None, BeforeValidator(_text)]
Count = Annotated[int | None, BeforeValidator(_count)]


class Message(BaseModel):
    """A choice's message."""

    content: Any = None
    reasoning_content: Text = None
    reasoning: Text = None
    refusal: Text = None
    tool_calls: Any = None

    @property
    def text(self) -> str | None:
        return _text(self.content)

    @property
    def thoughts(self) -> str | None:
        """What a reasoning model thought, where the server shows it beside the content or in parts of it."""
        return self.reasoning_content or self.reasoning or _thoughts_in(self.content)


class Choice(BaseModel):
    """One draw."""

    message: Annotated[Message, BeforeValidator(_mapping)] = Message()
    text: Text = None
    """Of servers that answer as to a plain completion."""
    index: Annotated[int | None, BeforeValidator(_index)] = None
    finish_reason: Text = None
    logprobs: Any = None
    error: Any = None

    @property
    def said(self) -> str | None:
        return self.message.text if self.message.content is not None else self.text

    @property
    def ended(self) -> str | None:
        """Why it ended, in the server's words; "refusal" where it refused in place of a text."""
        if self.message.refusal and not self.said:
            return "refusal"
        if self.error:
            return "error"
        return self.finish_reason or ("tool_calls" if self.message.tool_calls and not self.said else None)


class Details(BaseModel):
    cached_tokens: Count = None


class Tokens(BaseModel):
    """A usage; a number that is absent, null or absurd is None."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: Annotated[Details, BeforeValidator(_mapping)] = Details()

    def counted(self, request: Request, written: int) -> tuple[int, int, int, bool]:
        """Prompt, completion and cached tokens, and whether they are bounds, as the server did not say.

        No prompt is empty, so 0 tokens of one is no count; neither is 0 for a text that was `written` (bytes). Where
        one number is none, the others are not believed either.
        """
        prompt, completion, total = self.prompt_tokens, self.completion_tokens, self.total_tokens
        if prompt and completion is None and total is not None and total >= prompt:
            completion = total - prompt
        elif not prompt and completion is not None and total is not None and total > completion:
            prompt = total - completion
        cached = self.prompt_tokens_details.cached_tokens or 0
        if not prompt or completion is None or (completion == 0 < written) or cached > prompt:
            return max(prompt or 0, request.prompt_tokens_bound), max(completion or 0, written), 0, True
        return prompt, completion, cached, False


class ChatCompletion(BaseModel):
    choices: list[Annotated[Choice, BeforeValidator(_mapping)]] | None = None
    usage: Annotated[Tokens, BeforeValidator(_mapping)] = Tokens()
    error: Any = None


_LOGPROBS = TypeAdapter(list[tuple[str, float]])


class ErrorInside(ModelError):
    """An error in place of a chat completion, under a status that says that all is well."""

    def __init__(self, error: Any):
        super().__init__(str(error))
        self.error = error

    @property
    def status(self) -> int | None:
        """The HTTP status that its code names."""
        code = self.error.get("code") if isinstance(self.error, dict) else None
        code = int(code) if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3 else code
        return code if type(code) is int and 400 <= code <= 599 else None


def read_body(data: bytes, request: Request) -> Reply:
    """A body as a reply. Raises ErrorInside, ModelError where log-probabilities were left out, and ValueError for what
    is no chat completion."""
    try:
        found = ChatCompletion.model_validate_json(data)
    except ValidationError:  # of a text that only Python's more lenient reader takes, or of no chat completion
        found = ChatCompletion.model_validate(_json(data))
    if not (found.choices or found.error):
        _look_for_error(_json(data))
    return _reply(found, request)


def _look_for_error(found: Any) -> None:
    """Raises ErrorInside for an error that is not under "error", as earlier versions of vLLM write it."""
    if isinstance(found, dict) and isinstance(found.get("message"), str) and (
            found.get("object") == "error" or "code" in found):
        raise ErrorInside(found)


def read_reply(choices: Sequence[Any], usage: Any, request: Request) -> Reply:
    """The same of parts that are parsed already."""
    return _reply(ChatCompletion.model_validate({"choices": list(choices), "usage": usage}), request)


def _json(data: bytes) -> Any:
    """Raises ValueError for what is no JSON, or nested too deep."""
    try:
        found = json.loads(data.decode("utf-8-sig"), parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if isinstance(found, list) and found and isinstance(found[0], dict) and "error" in found[0]:
        return found[0]
    return found


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) < 20 else None


def _reply(found: ChatCompletion, request: Request) -> Reply:
    choices = found.choices or []
    if found.error and not choices:
        raise ErrorInside(found.error)
    if not choices:
        raise ValueError("no choices")
    if all(choice.error for choice in choices):
        raise ErrorInside(choices[0].error)
    if sorted(choice.index for choice in choices if choice.index is not None) == list(range(len(choices))):
        choices = sorted(choices, key=lambda choice: choice.index or 0)
    choices = choices[:len(request.seeds)]
    texts, thoughts = [choice.said for choice in choices], [choice.message.thoughts for choice in choices]
    written = sum(len(part.encode()) for part in (*texts, *thoughts) if part)
    prompt, completion, cached, bounds = found.usage.counted(request, written)
    logprobs = [_logprobs(choice.logprobs, text) for choice, text in zip(choices, texts, strict=True)
                ] if request.options.logprobs else None
    return Reply(texts, prompt, completion, cached, logprobs=logprobs, bounds=bounds,
                 finish_reasons=[choice.ended for choice in choices], thoughts=thoughts if any(thoughts) else None)


def _logprobs(found: Any, text: str | None) -> list[tuple[str, float]]:
    """The tokens of one choice's `logprobs`. Raises ModelError where they were left out or are no logarithms."""
    try:
        tokens = _LOGPROBS.validate_python([(well_formed(row["token"]), row["logprob"]) for row in found["content"]])
    except (KeyError, TypeError, AttributeError, ValidationError):
        if not text:
            return []
        raise ModelError("the reply has no log-probabilities, though they were asked for") from None
    if any(math.isnan(logprob) or logprob > 1e-3 for _, logprob in tokens):
        raise ModelError("the reply has log-probabilities that are none: NaN, or above 0")
    return tokens


def plain(record: Any) -> Any:
    """A pydantic record of LiteLLM's as dicts and lists."""
    return record.model_dump() if hasattr(record, "model_dump") else record
