"""The models of this process as LiteLLM providers: `litellm.completion("embedded/game24", ...)`, free of charge."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from typing import Any

from stl_programs.errors import ModelError, StlError
from stl_programs.models import registry
from stl_programs.models.base import Messages, Reply, ReplyOptions, Request
from stl_programs.models.served.background import wait_for
from stl_programs.models.served.litellm_module import the_litellm

PROVIDERS = ("embedded", "local")
MAX_TOKENS = 512
"""Of a reply, where the caller names no bound."""
_TAKEN = frozenset({"n", "seed", "temperature", "max_tokens", "max_completion_tokens", "stop", "logprobs",
                    "response_format", "max_retries"})
_registering = threading.Lock()
_registered = False


def register_with_litellm() -> None:
    """Teach LiteLLM the models `embedded/NAME` and `local/DIR`, with their adapters.

    Afterwards `litellm.completion`, `acompletion` and `dspy.LM` take them with n, seed, temperature, max_tokens, stop,
    logprobs and response_format; usage is counted and the cost is known to be 0. Other parameters are a
    BadRequestError, unless drop_params is set. Calling it again changes nothing.
    """
    global _registered
    litellm = the_litellm()
    with _registering:
        if _registered:
            return
        handler = _handler()
        litellm.custom_provider_map.extend({"provider": name, "custom_handler": handler} for name in PROVIDERS)
        litellm.utils.custom_llm_setup()
        for config in sorted(registry.EMBEDDED.glob("*/config.json")):
            _is_free(f"embedded/{config.parent.name}")
        _registered = True


def read_options(fields: Mapping[str, Any]) -> ReplyOptions:
    """What a chat completion request asks for beside text. Raises ModelError for a response_format of another kind."""
    stop = fields.get("stop") or ()
    schema: dict[str, Any] | None
    match fields.get("response_format"):
        case None | {"type": "text"}:
            schema = None
        case {"type": "json_object"}:
            schema = {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": dict(found)}}:
            schema = found
        case other:
            raise ModelError(f"response_format={other!r}: there are json_schema with a schema, json_object and text")
    return ReplyOptions((stop,) if isinstance(stop, str) else tuple(stop), bool(fields.get("logprobs")), schema)


def choices(reply: Reply) -> list[dict[str, Any]]:
    """The draws as the choices of a chat completion."""
    ended = reply.finish_reasons or ["stop"] * len(reply.texts)
    found: list[dict[str, Any]] = [
        {"index": i, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
        for i, (text, reason) in enumerate(zip(reply.texts, ended, strict=True))]
    for choice, thoughts in zip(found, reply.thoughts or [], strict=False):
        choice["message"] |= {"reasoning_content": thoughts} if thoughts else {}
    for choice, tokens in zip(found, reply.logprobs or [], strict=False):
        choice["logprobs"] = {"content": [{"token": token, "logprob": logprob, "bytes": list(token.encode()),
                                           "top_logprobs": []} for token, logprob in tokens]}
    return found


def _is_free(name: str) -> None:
    litellm = the_litellm()
    if name not in litellm.model_cost:
        litellm.register_model({name: {
            "input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "cache_read_input_token_cost": 0.0,
            "cache_creation_input_token_cost": 0.0, "litellm_provider": name.partition("/")[0], "mode": "chat"}})


def _handler() -> Any:
    """An instance of LiteLLM's CustomLLM; the class is made here because litellm is imported late."""
    litellm = the_litellm()

    class InThisProcess(litellm.CustomLLM):  # type: ignore[name-defined, misc]
        def completion(self, *arguments: Any, **request: Any) -> Any:
            return wait_for(self.acompletion(*arguments, **request))

        async def acompletion(self, *_: Any, **request: Any) -> Any:
            provider = request["litellm_params"]["custom_llm_provider"]
            name = f"{provider}/{request['model']}"
            try:
                reply = await registry.load(name).complete(_read(
                    name, request["messages"], request["optional_params"],
                    bool(request["litellm_params"].get("drop_params"))))
            except StlError as error:
                raise litellm.BadRequestError(message=str(error), model=name, llm_provider=provider) from None
            _is_free(name)
            response = request["model_response"]
            response.model = name
            response.choices = [litellm.Choices(**choice) for choice in choices(reply)]
            response.usage = litellm.Usage(
                prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens,
                total_tokens=reply.prompt_tokens + reply.completion_tokens)
            return response

    return InThisProcess()


def _read(name: str, messages: Messages, fields: dict[str, Any], drop: bool) -> Request:
    """LiteLLM's call as ours. Raises ModelError for what is no request, or has fields that these models do not take."""
    if (unknown := sorted(set(fields) - _TAKEN)) and not drop:
        raise ModelError(f"{name} runs in this process and takes no {' and no '.join(unknown)}")
    n, seed = fields.get("n") or 1, fields.get("seed")
    first = random.getrandbits(31) if seed is None else seed
    temperature = fields.get("temperature")
    return Request(messages, tuple(first + i for i in range(n)),
                   temperature=1.0 if temperature is None else temperature, options=read_options(fields),
                   max_tokens=fields.get("max_tokens") or fields.get("max_completion_tokens") or MAX_TOKENS)
