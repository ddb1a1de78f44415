"""One door to every model: a LiteLLM string becomes an ordinary dspy LM on the transport that it needs."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Self

import dspy
from dspy import lm15
from pydantic import Field, StringConstraints, model_validator

from stl_programs.construct import Count, Temperature, checked
from stl_programs.errors import AdapterError, ModelError, StlError, TransientError
from stl_programs.models import registry
from stl_programs.models.artifacts import adapter_hash, weights_hash
from stl_programs.models.base import Messages, Model, Reply, ReplyOptions, Request, asked_otherwise
from stl_programs.models.credentials import public
from stl_programs.models.echoes import without_echoes
from stl_programs.models.served.background import awaited, wait_for
from stl_programs.models.served.urls import REASONING
from stl_programs.models.versions import base_name
from stl_programs.outside import Strict, one_line, parsed, shown
from stl_programs.secrets import know_fields

MAX_TOKENS = 512
"""Of a reply, where the caller names no bound; as in Value and Policy."""
REASONING_MAX_TOKENS = 16_000
"""The same for OpenAI's reasoning models, whose thoughts count."""
OF_DSPY = frozenset({"temperature", "max_tokens", "n", "seed", "stop", "logprobs", "response_format", "num_retries",
                     "callbacks"})
"""What belongs to the dspy LM; other options belong to the connection or to the body of every request."""
ADDRESS = re.compile("base|url|uri|endpoint|host|proxy|proxies|server|model_list|engine|provider|transport",
                     re.IGNORECASE)
"""Names of options that say where requests go."""
PARAMS = frozenset({"temperature", "max_tokens", "n", "seed", "stop", "logprobs"})
NOT_TAKEN = ("top_p", "top_k", "tool_choice", "reasoning", "cache", "frequency_penalty", "presence_penalty",
             "service_tier", "user_id", "store", "probabilities", "extensions")
"""Settings of a dspy request that a single call cannot have here."""
FINISH_REASONS = {"length": "length", "content_filter": "content_filter", "refusal": "content_filter"}
"""What dspy calls the reasons why a draw ended; all others are "stop"."""


@checked
def lm_options(*, temperature: Temperature | None = None, max_tokens: Count | None = None, n: Count | None = None,
               max_completion_tokens: Count | None = None, seed: int | None = None, **_: Any) -> None:
    """Raises SettingError for sampling that no model can be asked for."""


def lm(name: str, *, api_base: str | Sequence[str] | None = None, api_key: str | None = None, cache: bool = True,
       **options: Any) -> dspy.LM:
    """The dspy LM of any model: embedded, a local directory, an adapter of either, a server or several, a provider.

    It serves `dspy.Predict` (sync and async) and, as `lm=`, Value and Policy alike. n draws travel as one request;
    draw i has the seed `seed + i`, and without a seed a random one. Log-probabilities (`logprobs=True`) and JSON
    schemas (`response_format`) are what the model itself gives; one that cannot fails with one line.

    Args:
        name: a LiteLLM string, `embedded/NAME`, `local/DIR`, or BASE@VERSION of a registered adapter (with an
            api_base: of one that the server serves).
        api_base: URL of an OpenAI-compatible server, or several URLs (a list, or commas between them).
        api_key: never saved with a program, and never shown.
        cache: dspy's cache of replies. Its key holds the endpoint, and the hash of weights on this disk.
        options: temperature (1.0 unless given), max_tokens (512; 16,000 for OpenAI's reasoning models), n, seed, stop,
            logprobs, response_format, num_retries, callbacks; of a model behind a network also timeout (seconds) and
            further fields of every request, like top_p.

    Raises ModelError for a name or an option that no model has, AdapterError for an adapter that is not registered.

    Example:
        >>> dspy.configure(lm=stl_programs.lm("hosted_vllm/tiny", api_base=["http://a:8000/v1", "http://b:8000/v1"]))
    """
    if not isinstance(name, str):
        raise ModelError(f"lm({shown(name)}): the name of a model is a string, like openai/gpt-4o or embedded/game24")
    if not (api_base is None or isinstance(api_base, Sequence)):
        raise ModelError(f"{name}: api_base={shown(api_base)}: a URL, or a list of them")
    lm_options(**options)
    base = api_base if api_base is None or isinstance(api_base, str) else ",".join(api_base)
    of_dspy = {key: value for key, value in options.items() if key in OF_DSPY}
    connection = {key: value for key, value in options.items() if key not in OF_DSPY}
    connection |= {key: value for key, value in (("api_base", base), ("api_key", api_key)) if value is not None}
    know_fields(connection)
    engine = DoorEngine(_open(name, connection), public(connection))
    engine.max_tokens = connection.get("max_completion_tokens")
    return DoorLM(name, engine=engine, async_engine=AsyncDoorEngine(engine), cache=cache, **of_dspy)


def as_dspy(model: str | Model) -> dspy.LM:
    """The dspy LM of a model string, or of a Model at hand."""
    if isinstance(model, str):
        return lm(model)
    engine = DoorEngine(model, {})
    return DoorLM(model.name, engine=engine, async_engine=AsyncDoorEngine(engine))


def saved_lm(lm: dspy.BaseLM) -> dict[str, Any]:
    """What a saved predictor says of its dspy LM: model, settings and connection; no key, and no adapter."""
    if not isinstance(lm, DoorLM):
        state: dict[str, Any] = public(lm.dump_state())
        return state
    settings = {name: setting for name, setting in lm.kwargs.items() if name in OF_DSPY and setting is not None}
    return {"door": base_name(lm.model), "connection": lm.engine.connection, "settings": settings,
            "cache": lm.cache}


def restored_lm(state: dict[str, Any], unsafe: bool) -> dspy.BaseLM:
    """The inverse of `saved_lm`. Raises ModelError for a server that only the file names, unless `unsafe`."""
    hidden = sorted(set(_addresses(state)))
    if hidden and not unsafe:
        raise ModelError(f"the saved program asks {shown(state.get('door') or state.get('model'))} with its own "
                         f"{' and '.join(hidden)[:200]}; give the predictor that dspy LM before loading, or load with "
                         "allow_unsafe_lm_state=True if you trust the file")
    try:
        if "door" not in state:
            return dspy.BaseLM.load_state(state, allow_custom_lm_class=unsafe)
        saved = parsed(SavedDoor, state, "the saved dspy LM", ModelError)
        return lm(saved.door, **saved.connection, **saved.settings, cache=saved.cache)
    except StlError:
        raise
    except Exception as error:  # whatever dspy makes of a state that it did not write
        raise ModelError(f"the saved dspy LM is none that dspy can make ({one_line(error)}); give the predictor its lm "
                         "before loading") from None


def _addresses(state: Any) -> Iterator[str]:
    """The names, at any depth, of what says where requests go."""
    if isinstance(state, dict):
        for name, value in state.items():
            if ADDRESS.search(str(name)) and value is not None:
                yield str(name)
            yield from _addresses(value)
    elif isinstance(state, list):
        for value in state:
            yield from _addresses(value)


class SavedDoor(Strict):
    """What a saved predictor says of an LM that `lm` made."""

    door: Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[^\x00-\x1f\x7f]+$")]
    connection: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    cache: bool = True

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if wrong := sorted(({*self.settings} - (OF_DSPY - {"callbacks"})) | ({*self.connection} & (
                OF_DSPY | {"name", "cache", "api_key"}))):
            raise ValueError(f"{wrong[0]!r} is no setting of a saved LM")
        return self


def _open(name: str, connection: dict[str, Any]) -> Model:
    """The model, with a connection of its own where there is anything to say about it."""
    if "/" not in name or not connection:
        return registry.load(name)
    if name.startswith(registry.IN_PROCESS):
        raise ModelError(f"{name} runs in this process and takes no {' and no '.join(sorted(connection))}")
    from stl_programs.models.served.transports import open_remote

    return open_remote(name, **connection)


@dataclass
class _Draws:
    """The draws of one call: dspy asks an engine for one after the other, and a provider is asked for all at once."""

    n: int
    given: int = 0
    ready: list[lm15.Response] = field(default_factory=list)


_draws: ContextVar[_Draws | None] = ContextVar("draws", default=None)


class DoorLM(dspy.LM):
    """The LM that `lm` returns: dspy's own, which tells its engine how many draws a call wants and whose they are."""

    def __call__(self, prompt: Any = None, **call: Any) -> Any:
        with self._call(prompt, call):
            return super().__call__(prompt, **call)

    async def acall(self, prompt: Any = None, **call: Any) -> Any:
        with self._call(prompt, call):
            return await super().acall(prompt, **call)

    @contextmanager
    def _call(self, prompt: Any, call: dict[str, Any]) -> Iterator[None]:
        if call.get("cache", self.cache):  # rollout_id is the part of dspy's cache key that is not sent
            call["rollout_id"] = [self.engine.identity, call.get("rollout_id", self.kwargs.get("rollout_id"))]
        single = isinstance(call.get("request", prompt), lm15.Request)
        token = _draws.set(_Draws(1 if single else call.get("n") or self.kwargs.get("n") or 1))
        try:
            yield
        finally:
            _draws.reset(token)

    def _warn_zero_temp_rollout(self, temperature: float | None, rollout_id: Any) -> None:
        """Every cached call has a rollout_id here."""


class DoorEngine:
    """dspy's engine contract around a Model, from ordinary code."""

    def __init__(self, model: Model, connection: dict[str, Any]):
        self.stl_model, self.connection = model, connection
        self.max_tokens: int | None = None
        """Of a draw, where the caller names no bound and the user did, as "max_completion_tokens"."""

    @property
    def supports_response_schema(self) -> bool:
        """Whether dspy's adapters may ask for JSON of a schema; models of this process are not held to one."""
        model = getattr(self.stl_model, "base", self.stl_model)
        return hasattr(model, "takes") and model.takes("response_format")

    @property
    def supported_params(self) -> frozenset[str]:
        return PARAMS | {"response_format"} if self.supports_response_schema else PARAMS

    def complete(self, request: lm15.Request) -> lm15.Response:
        return wait_for(_next(self, request, _draws.get() or _Draws(1)))

    def stream(self, request: lm15.Request) -> Iterator[Any]:
        """The whole reply as a stream."""
        return iter(lm15.response_to_events(self.complete(request)))

    def close(self) -> None:
        """Connections belong to their event loop."""

    @cached_property
    def identity(self) -> str:
        """Where replies come from, beyond the model's name: LMs that differ here share no cached reply."""
        model, directory = self.stl_model, self.stl_model.weights()
        where = model.endpoint if model.endpoint or directory is None else weights_hash(directory)
        try:
            return f"{where} {adapter_hash(registry.adapter_path(model.name))}"
        except AdapterError:  # no adapter, or one that only the server knows
            return str(where)

    def dump_state(self) -> dict[str, Any]:
        """The model's name and its connection, without a key."""
        return {"name": self.stl_model.name, "connection": self.connection}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> Any:
        return cls(_open(state["name"], state["connection"]), state["connection"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class AsyncDoorEngine:
    """The same from asynchronous code."""

    def __init__(self, engine: DoorEngine):
        self.engine = engine

    async def complete(self, request: lm15.Request) -> lm15.Response:
        draw = _next(self.engine, request, _draws.get() or _Draws(1))
        if self.engine.stl_model.endpoint is None:  # no connection that would have to outlive the caller's loop
            return await draw
        return await awaited(draw)

    async def stream(self, request: lm15.Request) -> AsyncIterator[Any]:
        """The whole reply as a stream."""
        for event in lm15.response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """Connections belong to their event loop."""

    def dump_state(self) -> dict[str, Any]:
        return self.engine.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> Any:
        return cls(DoorEngine.load_state(state))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


async def _next(engine: DoorEngine, request: lm15.Request, draws: _Draws) -> lm15.Response:
    """The next draw of a call. Raises lm15's errors: dspy sends again what is a TransportError."""
    if not draws.ready:
        draws.ready = await _ask(engine, request, draws)
    draws.given += 1
    return draws.ready.pop(0)


async def _ask(engine: DoorEngine, request: lm15.Request, draws: _Draws) -> list[lm15.Response]:
    model, config = engine.stl_model, request.config
    _refuse(model, request)
    first = random.getrandbits(31) if config.seed is None else config.seed + draws.given
    most = config.max_tokens or engine.max_tokens or (
        REASONING_MAX_TOKENS if model.name.removeprefix("openai/").startswith(REASONING) else MAX_TOKENS)
    format_ = config.response_format or {}
    schema = {"type": "object"} if format_.get("type") == "json_object" else format_.get("schema")
    options = ReplyOptions(tuple(config.stop), config.logprobs is not None, schema)
    try:
        reply = without_echoes(await asked_otherwise(model, Request(
            _messages(model, request), tuple(first + i for i in range(draws.n - draws.given)), max_tokens=most,
            temperature=1.0 if config.temperature is None else config.temperature, options=options)))
    except TransientError as error:
        raise lm15.TransportError(str(error), retry_after=error.retry_after) from None
    except StlError as error:
        raise lm15.InvalidRequestError(str(error)) from None
    if not reply.texts:
        raise lm15.InvalidRequestError(f"{model.name} returned no choices")
    return [_response(model, reply, i) for i in range(len(reply.texts))]


def _response(model: Model, reply: Reply, i: int) -> lm15.Response:
    """Draw i as dspy takes it; the first one carries what all of them cost."""
    usage = (lm15.Usage(input_tokens=reply.prompt_tokens, output_tokens=reply.completion_tokens,
                        cache_read_tokens=reply.cached_tokens) if i == 0 else lm15.Usage())
    thoughts = reply.thoughts and reply.thoughts[i]
    text = lm15.TextPart(reply.texts[i] or "")
    ended = reply.finish_reasons and reply.finish_reasons[i]
    tokens = reply.logprobs[i] if reply.logprobs else None
    return lm15.Response(
        id=None, model=model.name,
        message=lm15.Message.assistant([lm15.ThinkingPart(thoughts), text] if thoughts else [text]),
        finish_reason=FINISH_REASONS.get(ended or "stop", "stop"), usage=usage,
        logprobs=tokens and tuple(lm15.TokenLogprob(token=token, logprob=logprob) for token, logprob in tokens))


def _messages(model: Model, request: lm15.Request) -> Messages:
    """The chat as dicts of role and text. Raises UnsupportedFeatureError for anything but text."""
    messages: Messages = []
    if request.system is not None:
        system = request.system if isinstance(request.system, str) else "\n".join(
            getattr(part, "text", "") for part in request.system)
        messages.append({"role": "system", "content": system})
    for message in request.messages:
        if message.text is None:
            raise lm15.UnsupportedFeatureError(f"{model.name} takes text only here, no "
                                               f"{', no '.join(sorted({part.type for part in message.parts}))}")
        messages.append({"role": "system" if message.role == "developer" else message.role, "content": message.text})
    return messages


def _refuse(model: Model, request: lm15.Request) -> None:
    config = request.config
    asked = [field for field in NOT_TAKEN if getattr(config, field) is not None]
    asked += ["tools"] * bool(request.tools) + ["top_logprobs"] * bool(config.logprobs)
    if asked:
        raise lm15.UnsupportedFeatureError(f"{model.name}: a call takes no {' and no '.join(asked)} here; what every "
                                           "request to a server shall have, give to stl_programs.lm")
