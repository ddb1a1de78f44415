"""Models behind a network: what they share, those that only LiteLLM speaks to, and any other dspy LM object."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dspy

from stl_programs.errors import AdapterError, ModelError, TransientError
from stl_programs.models.base import Completions, Messages, Prices
from stl_programs.models.formats import LookaheadFormat
from stl_programs.models.prices import own_price

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # prices ship with litellm; no fetch at import

CHECK_SECONDS = 5.0
"""How long `check` waits for a server to answer."""
TIMEOUT_SECONDS = 600.0
SEED_MASK = 0x7FFFFFFF
"""Seeds travel as 31 bits: some servers take no more."""
SECRET_LENGTH = 6
"""Shorter keys, like "none", are placeholders and words of ordinary messages."""
TRANSIENT = frozenset({408, 409, 425, 429})
"""Statuses that may pass when sent again; so may every 5xx."""
_CONNECTION = ("api_base", "api_key", "api_version", "timeout")


def open_remote(name: str, **options: Any) -> RemoteModel:
    """The model behind a LiteLLM string: over plain HTTP where its server speaks OpenAI's protocol, else by LiteLLM.

    Args:
        options: api_base, api_key, timeout (seconds), and further fields of every request.
    """
    if name.startswith(("hosted_vllm/", "openai/")):
        from stl_programs.models.direct import DirectModel

        return DirectModel(name, **options)
    return LiteLLMModel(name, **options)


def handles(lm: dspy.BaseLM) -> bool:
    """Whether an LM object is but a LiteLLM string with connection options."""
    return isinstance(lm, dspy.LM) and isinstance(lm._engine_spec, str)


def from_lm(lm: dspy.BaseLM) -> RemoteModel:
    """The model that such an LM object names, with its connection options."""
    options = {key: lm.kwargs[key] for key in _CONNECTION if lm.kwargs.get(key) is not None}
    if lm.kwargs.get("base_url") is not None:
        options.setdefault("api_base", lm.kwargs["base_url"])
    if lm.model.startswith(("hosted_vllm/", "openai/")):
        options.pop("api_version", None)
    return open_remote(lm.model, **options)


class RemoteModel:
    """What models behind a network share; `complete` is its children's.

    Args:
        name: like "openai/gpt-4o".
        api_base: URL of the server; None for the provider's own.
        timeout: seconds for one request.
        extra: further fields of every request, like top_p.
    """

    def __init__(self, name: str, *, api_base: str | None = None, api_key: str | None = None,
                 timeout: float = TIMEOUT_SECONDS, **extra: Any):
        self.name = name
        self.prompt_format: dspy.Adapter = LookaheadFormat()
        if name.startswith("hosted_vllm/"):
            api_base = api_base or os.environ.get("HOSTED_VLLM_API_BASE")
            api_key = api_key or os.environ.get("HOSTED_VLLM_API_KEY", "none")
        self.api_base, self.timeout, self.extra = api_base, timeout, extra
        self.endpoint: str | None = address(api_base) if api_base else name.partition("/")[0]
        self._api_key = api_key
        self._prices: Prices | None = None
        self._priced_by = 0

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None) -> Completions:
        raise NotImplementedError

    def prices(self) -> Prices | None:
        """What the user's price file says, else LiteLLM's table (`litellm.register_model` included)."""
        if (own := own_price(self.name)) is not None:
            return own
        import litellm

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

    def check(self) -> None:
        import litellm

        if self.name.startswith("hosted_vllm/") and not self.api_base:
            raise self.no_server()
        try:
            litellm.get_llm_provider(self.name)
        except Exception as error:
            raise ModelError(f"LiteLLM knows no provider for {self.name!r}; write PROVIDER/MODEL, like openai/gpt-4o "
                             "(https://docs.litellm.ai/docs/providers)") from error
        if not self._api_key and not self._may_lack_key():
            missing = litellm.validate_environment(self.name)["missing_keys"]
            if missing:
                raise ModelError(f"{self.name}: set the environment variable {' and '.join(missing)}")
        if self.api_base:
            self._reach(self.api_base)

    def no_server(self) -> ModelError:
        return ModelError(f"{self.name}: no server; set HOSTED_VLLM_API_BASE to its URL, like http://127.0.0.1:8000/v1")

    def _may_lack_key(self) -> bool:
        return False

    def _reach(self, api_base: str) -> None:
        import httpx

        try:
            reply = httpx.get(under(api_base, "models"), headers=self.authorization(), timeout=CHECK_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelError(f"{self.name}: no answer from {address(api_base)} within {CHECK_SECONDS:g} s "
                             f"({type(error).__name__}); start the server or correct the URL") from None
        if reply.status_code in (401, 403):
            raise ModelError(f"{self.name}: {address(api_base)} refuses the key ({reply.status_code})")
        if reply.status_code == 200 and (served := _served(reply)):
            wanted = self.name.partition("/")[2]
            if wanted not in served:
                raise ModelError(f"{self.name}: {address(api_base)} serves {', '.join(sorted(served))}, "
                                 f"not {wanted!r}")

    def authorization(self) -> dict[str, str]:
        """The header that carries the key; none where the URL itself names a user."""
        if not self._api_key or (self.api_base and "@" in urlsplit(self.api_base).netloc):
            return {}
        return {"Authorization": f"Bearer {self._api_key}"}

    def without_key(self, text: str) -> str:
        """The first line of a server's words, at most 300 characters, without key or password should it echo them."""
        for secret in (self._api_key, urlsplit(self.api_base).password if self.api_base else None):
            if secret and len(secret) >= SECRET_LENGTH:
                text = text.replace(secret, "***")
        line = next(iter(text.strip().splitlines()), "")
        return "".join(character for character in line if character.isprintable())[:300]

    def weights(self) -> Path | None:
        return None

    def load_adapter(self, name: str, path: Path) -> None:
        """Load at run time through vLLM's `/v1/load_lora_adapter`; the server must see the same file system."""
        import httpx

        if not self.api_base:
            raise AdapterError(f"{self.name} takes no adapters: only a vLLM server that you run does "
                               "(hosted_vllm/NAME)")
        try:
            reply = httpx.post(under(self.api_base, "load_lora_adapter"), headers=self.authorization(), timeout=60,
                               json={"lora_name": name.partition("/")[2], "lora_path": str(path)})
        except httpx.HTTPError as error:
            raise AdapterError(f"no answer from {address(self.api_base)} to the adapter {path} "
                               f"({type(error).__name__})") from None
        if reply.status_code != 200 and "already" not in reply.text:
            raise AdapterError(f"{address(self.api_base)} did not load the adapter {path} "
                               f"({reply.status_code}): {self.without_key(reply.text)[:200]}")


class LiteLLMModel(RemoteModel):
    """Any provider that LiteLLM knows. Parameters that the provider does not take, like n, are dropped."""

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None) -> Completions:
        import litellm

        litellm.suppress_debug_info = True
        name = adapter or self.name
        options = {"n": len(seeds), "seed": seeds[0] & SEED_MASK, "temperature": temperature, "max_tokens": max_tokens,
                   "api_base": self.api_base, "api_key": self._api_key, "timeout": self.timeout, **self.extra}
        try:
            reply = await litellm.acompletion(
                model=name, messages=messages, drop_params=True, num_retries=0, max_retries=0,
                **{key: value for key, value in options.items() if value is not None})
        except Exception as error:  # litellm raises many kinds; each one fails this request, with its first line
            raise self._failure(name, error) from None
        if not reply.choices:
            raise TransientError(f"{name}: the reply has no choices", maybe_paid=True)
        details = getattr(reply.usage, "prompt_tokens_details", None)
        return Completions([choice.message.content for choice in reply.choices][:len(seeds)],
                           reply.usage.prompt_tokens, reply.usage.completion_tokens,
                           getattr(details, "cached_tokens", None) or 0)

    def _failure(self, name: str, error: Exception) -> ModelError:
        """Transient or not, by litellm's status; maybe paid unless the server refused, or was never reached."""
        import httpx
        import litellm

        text = f"{name}: {type(error).__name__}: {self.without_key(str(error))}"
        causes, status = list(_causes(error)), getattr(error, "status_code", None)
        cut = any(isinstance(cause, json.JSONDecodeError) for cause in causes)
        lost = isinstance(error, (litellm.exceptions.Timeout, litellm.exceptions.APIConnectionError))
        passing = status in TRANSIENT or (isinstance(status, int) and status >= 500)
        if not (lost or passing or (cut and status == 200)):
            return ModelError(text)
        unsent = any(isinstance(cause, (httpx.ConnectError, httpx.ConnectTimeout)) for cause in causes)
        broken = any(isinstance(cause, httpx.TransportError) for cause in causes)
        headers = getattr(error, "litellm_response_headers", None) or {}
        return TransientError(text, retry_after=wait(headers.get("retry-after")),
                              maybe_paid=(lost or broken or cut) and not unsent)


class DspyModel:
    """Any other dspy LM object (DummyLM, an LM with its own engine), one request a draw.

    Tokens are what the object reports to dspy's usage tracker, which may be none.
    """

    def __init__(self, lm: dspy.BaseLM):
        self.lm, self.name = lm, lm.model
        self.endpoint: str | None = lm.model
        self.prompt_format: dspy.Adapter = LookaheadFormat()

    def prices(self) -> Prices | None:
        return None

    def check(self) -> None:
        """Nothing to check: the object is there."""

    def weights(self) -> Path | None:
        return None

    def load_adapter(self, name: str, path: Path) -> None:
        raise AdapterError(f"{self.name} takes no adapters; name the model by its LiteLLM string")

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None) -> Completions:
        texts: list[str | None] = []
        with dspy.track_usage() as tracker:
            for seed in seeds:
                draw = {"rollout_id": seed} if isinstance(self.lm, dspy.LM) else {}  # else its cache repeats one draw
                outputs = await self.lm.acall(messages=messages, temperature=temperature, max_tokens=max_tokens, **draw)
                output = outputs[0] if outputs else None
                texts.append(output.get("text") if isinstance(output, dict) else output)
        entries = [entry for entries in tracker.usage_data.values() for entry in entries]
        prompt, completion = (sum(entry.get(name) or 0 for entry in entries)
                              for name in ("prompt_tokens", "completion_tokens"))
        return Completions(texts, prompt, completion)


def address(url: str) -> str:
    """`url` without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def under(url: str, path: str) -> str:
    """The URL of `path` below `url`, whose query stays."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{path}").geturl()


def wait(header: str | None) -> float | None:
    """A Retry-After header, in seconds or as an HTTP date, as seconds from now; None where there is none."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _served(reply: Any) -> set[str]:
    try:
        return {str(row["id"]) for row in reply.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return set()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
