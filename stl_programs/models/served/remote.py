"""Models behind a network: what they share, those that only LiteLLM speaks to, and any other dspy LM object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
from dspy.utils import exceptions

from stl_programs.errors import AdapterError, ModelError, TransientError
from stl_programs.models.base import Prices, Reply, Request
from stl_programs.models.formats import LookaheadFormat
from stl_programs.models.prices import own_price
from stl_programs.models.served.http import TOO_LONG, environment
from stl_programs.models.served.litellm_module import PAST_HTTPX, held, know_keys, the_litellm
from stl_programs.models.served.options import connection
from stl_programs.models.served.pools import Pool
from stl_programs.models.served.protocol import asked_for, plain, read_reply
from stl_programs.models.served.urls import wait, without_secrets
from stl_programs.secrets import know_fields

SEED_MASK = 0x7FFFFFFF
"""Seeds travel as 31 bits: some servers take no more."""
TRANSIENT = frozenset({408, 409, 425, 429})
"""Statuses that may pass when sent again; so may every 5xx."""


PASSING = (exceptions.LMTransportError, exceptions.LMRateLimitError, exceptions.LMTimeoutError,
           exceptions.LMServerError)
"""Errors of a dspy LM that may pass when sent again."""


class RemoteModel:
    """What models behind a network share; `complete` is its children's.

    Args:
        name: like "openai/gpt-4o".
        api_base: URL of the server, several with commas between them; None for the provider's own.
        options: see `connection`.
    """

    def __init__(self, name: str, **options: Any):
        know_fields(options)
        self.name, self.given = name, options
        self.read_of = self.surroundings(name)
        """What the environment said when this was opened; where it says something else, `load` opens it anew."""
        self.prompt_format: dspy.Adapter = LookaheadFormat()
        self.options = connection(name, options)
        base, key = self.read_of
        self.api_base, self._api_key = self.options.api_base or base, self.options.api_key or key
        self.timeout, self.extra = self.options.timeout, self.options.body | self.options.extra_body
        self.pool = Pool(self.api_base, self._api_key, self.options.headers) if self.api_base else None
        self.endpoint: str | None = self.pool.endpoint if self.pool else name.partition("/")[0]
        self._prices: Prices | None = None
        self._priced_by = 0

    @staticmethod
    def surroundings(name: str) -> tuple[str | None, ...]:
        """Base URL and key that the environment names for this model; LiteLLM reads those of its providers itself."""
        if name.startswith("hosted_vllm/"):
            base, key = environment("HOSTED_VLLM_API_BASE", "HOSTED_VLLM_API_KEY")
            return base, key or "none"
        return None, None

    def again(self) -> RemoteModel:
        """The same, by what the environment says now."""
        return self if self.surroundings(self.name) == self.read_of else type(self)(self.name, **self.given)

    async def complete(self, request: Request) -> Reply:
        raise NotImplementedError

    def prices(self) -> Prices | None:
        """What the user's price file says, else LiteLLM's table (`litellm.register_model` included)."""
        if (own := own_price(self.name)) is not None:
            return own
        litellm = the_litellm()
        if self._prices is None and self._priced_by != len(litellm.model_cost):
            self._priced_by = len(litellm.model_cost)
            try:
                row = litellm.get_model_info(self.name)
            except litellm.exceptions.ModelNotMappedError:
                return None
            prompt, completion = row.get("input_cost_per_token"), row.get("output_cost_per_token")
            if prompt is not None and completion is not None:
                cached = row.get("cache_read_input_token_cost")
                self._prices = Prices(prompt, prompt if cached is None else cached, completion)
        return self._prices

    def check(self, max_tokens: int = 0) -> None:
        """Raises ModelError, before any work, for a missing key, and for every server that does not serve the model.

        A run should begin with all of its servers, though it survives the loss of some.
        """
        litellm = the_litellm()
        if self.name.startswith("hosted_vllm/") and not self.api_base:
            raise self.no_server()
        try:
            litellm.get_llm_provider(self.name)
        except Exception as error:
            raise ModelError(f"LiteLLM knows no provider for {self.name!r}; write PROVIDER/MODEL, like openai/gpt-4o "
                             "(https://docs.litellm.ai/docs/providers)") from error
        if not self._api_key and not self._may_lack_key() and not (self.given.keys() - {"timeout"}):
            needed = litellm.validate_environment(self.name)["missing_keys"]
            if missing := [one for one in needed if one.endswith("_API_KEY")]:
                raise ModelError(f"{self.name}: set the environment variable {' and '.join(missing)}")
        troubles = self.pool.troubles(self.name.partition("/")[2], max_tokens) if self.api_base and self.pool else []
        if self.pool and troubles:
            of = len(self.pool.servers)
            some = f"{len(troubles)} of {of} servers cannot be used: " if of > 1 else ""
            raise ModelError(f"{self.name}: {some}{'; '.join(troubles)}")

    def no_server(self) -> ModelError:
        return ModelError(f"{self.name}: no server; set HOSTED_VLLM_API_BASE to its URL, like http://127.0.0.1:8000/v1")

    def _may_lack_key(self) -> bool:
        return False

    def takes(self, field: str) -> bool:
        """Whether a request may have this field of OpenAI's; what a server refuses is known when it refuses."""
        return True

    def without_key(self, text: str) -> str:
        """A server's words in one line of at most 300 characters, without key or password should it echo them."""
        hidden = [self._api_key, *self.options.headers.values()]
        return self.pool.clean(text, hidden) if self.pool else without_secrets(text, hidden)

    def weights(self) -> Path | None:
        return None

    def load_adapter(self, name: str, path: Path) -> None:
        """Load at run time through vLLM's `/v1/load_lora_adapter`; every server must see the same file system.

        Raises AdapterError for a directory that holds no adapter, for one that was trained on other weights than the
        server names as its base (where those lie on this disk), for a directory whose weights have changed since a
        server read it, and for what the server refuses.
        """
        if not self.api_base or not self.pool:
            raise AdapterError(f"{self.name} takes no adapters: only a vLLM server that you run does "
                               "(hosted_vllm/NAME)")
        self.pool.load_adapter(name.partition("/")[2], path, self.name.partition("/")[2])

    def unload_adapter(self, name: str) -> None:
        """Unload through vLLM's `/v1/unload_lora_adapter`. Raises AdapterError where no server serves it."""
        if not self.api_base or not self.pool:
            raise AdapterError(f"{self.name} serves no adapter {name}")
        self.pool.unload_adapter(name.partition("/")[2])

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteModel:
        return self


class LiteLLMModel(RemoteModel):
    """Any provider that LiteLLM knows, at one URL.

    A provider that does not take n answers with one draw, and is asked again; one that does not take a seed gets none,
    and its draws do not repeat. What a request's options ask for is never dropped: it is a ModelError before anything
    is sent.
    """

    def __init__(self, name: str, **options: Any):
        super().__init__(name, **options)
        if name.startswith(PAST_HTTPX):
            raise ModelError(f"{name}: LiteLLM asks this provider in a way that lets a key follow a redirect; name the "
                             "server as openai/NAME, with its api_base")
        if self.pool and len(self.pool.servers) > 1:
            raise ModelError(f"{name}: LiteLLM takes one base URL; only hosted_vllm/NAME and openai/NAME take several")

    async def complete(self, request: Request) -> Reply:
        litellm = the_litellm()
        litellm.suppress_debug_info = True
        know_keys()
        name = request.adapter or self.name
        wanted = asked_for(request.options)
        self._refuse_untaken(wanted)
        options = self.options
        fields = {"n": len(request.seeds), "seed": request.seeds[0] & SEED_MASK, "temperature": request.temperature,
                  options.limit or "max_tokens": request.max_tokens, "api_base": self.api_base,
                  "api_key": self._api_key, "timeout": self.timeout, "extra_headers": options.headers or None,
                  "extra_body": options.extra_body or None,
                  "additional_drop_params": sorted(options.left_out) or None, **wanted, **options.body}
        try:
            async with asyncio.timeout(self.timeout):
                with held() as hold:
                    reply = await litellm.acompletion(
                        model=name, messages=request.messages, drop_params=True, num_retries=0, max_retries=0,
                        **{key: value for key, value in fields.items() if value is not None})
        except TimeoutError:
            raise TransientError(f"{name}: no reply within {self.timeout:g} s", maybe_paid=True) from None
        except Exception as error:  # litellm raises many kinds; each one fails this request, with its first line
            if hold.cut:
                raise ModelError(f"{name}: {TOO_LONG}", maybe_paid=True) from None
            raise self._failure(name, error) from None
        try:
            usage = plain(getattr(reply, "usage", None))
            return read_reply([plain(choice) for choice in reply.choices], usage, request)
        except ModelError as error:
            raise ModelError(f"{name}: {self.without_key(str(error))}") from None
        except ValueError:
            raise TransientError(f"{name}: the reply has no choices", maybe_paid=True) from None

    def _refuse_untaken(self, wanted: dict[str, Any]) -> None:
        """What was asked for is never dropped without a word. Raises ModelError."""
        known = the_litellm().constants.DEFAULT_CHAT_COMPLETION_PARAM_VALUES
        if missing := [field for field in (*wanted, *(known.keys() & self.options.body.keys()))
                       if not self.takes(field)]:
            raise ModelError(f"{self.name}: LiteLLM passes no {' and no '.join(missing)} to this provider; leave it "
                             "out, or name another model")

    def takes(self, field: str) -> bool:
        return field in (the_litellm().get_supported_openai_params(self.name) or ())

    def _failure(self, name: str, error: Exception) -> ModelError:
        """Transient or not, by litellm's status; maybe paid unless the server refused, or was never reached."""
        import httpx

        litellm = the_litellm()
        text = f"{name}: {type(error).__name__}: {self.without_key(told(error))}"
        causes, status = list(_causes(error)), getattr(error, "status_code", None)
        if led_away := [code for code in (status, *_statuses(causes)) if isinstance(code, int) and 300 <= code < 400]:
            return ModelError(f"{name}: the server answered {led_away[0]}, a redirect, which is not followed: a key "
                              "stays with its server; name the URL where it leads")
        cut = any(isinstance(cause, json.JSONDecodeError) for cause in causes)
        lost = isinstance(error, (litellm.exceptions.Timeout, litellm.exceptions.APIConnectionError))
        passing = status in TRANSIENT or (isinstance(status, int) and status >= 500)
        if not (lost or passing or (cut and status == 200)):
            return ModelError(text)
        unsent = any(isinstance(cause, (httpx.ConnectError, httpx.ConnectTimeout)) for cause in causes)
        broken = any(isinstance(cause, httpx.TransportError) for cause in causes)
        headers = getattr(error, "litellm_response_headers", None) or {}
        return TransientError(text, retry_after=wait(headers.get("retry-after")) or None,
                              maybe_paid=(lost or broken or cut) and not unsent)


class DspyModel:
    """Any other dspy LM object (DummyLM, an LM with its own engine), one draw a request: text, and thoughts
    where it gives them.

    Tokens are what the object reports to dspy's usage tracker; where it reports none, bounds.
    """

    through_dspy = True
    """dspy itself notes its calls: tokens, history, callbacks."""

    def __init__(self, lm: dspy.BaseLM):
        know_fields(getattr(lm, "kwargs", None) or {})
        self.lm, self.name = lm, lm.model
        self.endpoint: str | None = lm.model
        self.prompt_format: dspy.Adapter = LookaheadFormat()

    def prices(self) -> Prices | None:
        return None

    def check(self, max_tokens: int = 0) -> None:
        """Nothing to check: the object is there."""

    def weights(self) -> Path | None:
        return None

    def load_adapter(self, name: str, path: Path) -> None:
        raise AdapterError(f"{self.name} takes no adapters; name the model by its LiteLLM string")

    def unload_adapter(self, name: str) -> None:
        raise AdapterError(f"{self.name} serves no adapter {name}")

    async def complete(self, request: Request) -> Reply:
        if wanted := asked_for(request.options):
            raise ModelError(f"{self.name}: a dspy LM object gives no {' and no '.join(wanted)} here; name the model "
                             "by its LiteLLM string, or open it with stl_programs.lm")
        draw = {"rollout_id": request.seeds[0]} if isinstance(self.lm, dspy.LM) else {}  # else its cache repeats one
        try:
            with dspy.track_usage() as tracker:
                outputs = await self.lm.acall(messages=request.messages, temperature=request.temperature,
                                              max_tokens=request.max_tokens, **draw)
        except exceptions.LMError as error:
            raise _failed_in_dspy(self.name, error) from None
        output = outputs[0] if outputs else None
        more = output if isinstance(output, dict) else {"text": output}
        message = {"content": more.get("text"), "reasoning_content": more.get("reasoning_content")}
        reported = [entry for entries in tracker.usage_data.values() for entry in entries]
        return read_reply([{"message": message}], reported[0] if len(reported) == 1 else _summed(reported), request)


def _failed_in_dspy(name: str, error: Exception) -> ModelError:
    """An error of a dspy LM, by its kind; what never was an answer may have been paid for."""
    text = f"{name}: {type(error).__name__}: {without_secrets(told(error), [])}"
    if not isinstance(error, PASSING):
        return ModelError(text)
    pause = getattr(error, "retry_after", None)
    return TransientError(text, retry_after=pause if isinstance(pause, (int, float)) else None, maybe_paid=True)


def _summed(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Several usages as one; a number that one of them lacks is missing."""
    counts = {name: [entry.get(name) for entry in entries] for name in ("prompt_tokens", "completion_tokens")}
    return {name: sum(found) for name, found in counts.items() if found and all(type(one) is int for one in found)}


def told(error: Exception) -> str:
    """What an error says, or its kind where it cannot say it."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__


def _statuses(causes: list[BaseException]) -> list[Any]:
    return [getattr(getattr(cause, "response", None), "status_code", None) for cause in causes]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
