"""A client for servers that speak OpenAI's chat protocol: one HTTP request a call, and as little else as possible."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from stl_programs.errors import ModelError, TransientError
from stl_programs.models.base import Completions, Messages, prompt_tokens_bound
from stl_programs.models.remote import SEED_MASK, TIMEOUT_SECONDS, TRANSIENT, RemoteModel, address, under, wait

OPENAI = "https://api.openai.com/v1"
CONNECT_SECONDS = 30.0
_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()


async def close_sessions() -> None:
    """Close the connections of the running event loop."""
    if (session := _sessions.pop(asyncio.get_running_loop(), None)) is not None:
        await session.close()


def _session() -> aiohttp.ClientSession:
    """The session of the running event loop. All models share it; the engine bounds how many requests are in flight."""
    loop = asyncio.get_running_loop()
    session = _sessions.get(loop)
    if session is None:
        for closed in [other for other in _sessions if other.is_closed()]:
            _sessions.pop(closed).detach()
        session = _sessions[loop] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
    return session


class DirectModel(RemoteModel):
    """An OpenAI-compatible chat endpoint: `openai/NAME`, or `hosted_vllm/NAME` for a server that you run.

    All draws of a call travel as one request with n, and the first draw's seed. Nothing is retried here. Connections
    belong to the running event loop; `close_sessions` ends them.

    Args:
        name: provider and model. What follows the first "/" is the model that the server is asked for.
        api_base: URL up to and with /v1. By default OPENAI_API_BASE, OPENAI_BASE_URL or OpenAI's own for `openai/`,
            HOSTED_VLLM_API_BASE for `hosted_vllm/`.
        api_key: by default OPENAI_API_KEY or HOSTED_VLLM_API_KEY.
        timeout: seconds for one request.
        extra: further fields of every request body, like top_p.

    Example:
        >>> model = DirectModel("hosted_vllm/tiny", api_base="http://127.0.0.1:8000/v1")
        >>> (await model.complete([{"role": "user", "content": "Hi"}], [0, 1], temperature=1.0, max_tokens=9)).texts
        ['Hello.', 'Good day.']
    """

    def __init__(self, name: str, *, api_base: str | None = None, api_key: str | None = None,
                 timeout: float = TIMEOUT_SECONDS, **extra: Any):
        if name.startswith("openai/"):
            api_base = api_base or os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
            api_key = api_key or os.environ.get("OPENAI_API_KEY")
        super().__init__(name, api_base=api_base, api_key=api_key, timeout=timeout, **extra)
        base = self.api_base or (OPENAI if name.startswith("openai/") else None)
        self._url = URL(under(base, "chat/completions")) if base else None
        self.endpoint = address(base) if base else name.partition("/")[0]
        self._limit = "max_completion_tokens" if self._url and self._url.host == "api.openai.com" else "max_tokens"
        self._headers = {"Content-Type": "application/json", **self.authorization()}
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))
        self._proxy = _proxy(base) if base else None

    def _may_lack_key(self) -> bool:
        return self._url is not None and self._url.host != "api.openai.com"

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None) -> Completions:
        if self._url is None:
            raise self.no_server()
        name = adapter or self.name
        body = {"model": name.partition("/")[2], "messages": messages, "temperature": temperature,
                self._limit: max_tokens, "n": len(seeds), "seed": seeds[0] & SEED_MASK, **self.extra}
        try:
            async with _session().post(self._url, data=json.dumps(body).encode(), headers=self._headers,
                                       timeout=self._timeout, proxy=self._proxy, allow_redirects=False) as response:
                data = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._lost(name, error) from None
        if response.status != 200:
            raise self._refused(name, response, data)
        try:
            return _read(json.loads(data), messages, len(seeds))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise TransientError(f"{name}: {self.endpoint} sent a reply that is cut or no chat completion "
                                 f"({type(error).__name__}, {len(data)} bytes)", maybe_paid=True) from None

    def _lost(self, name: str, error: Exception) -> ModelError:
        """No reply came. Unsent requests are not paid for; a certificate or URL does not mend by itself."""
        why = f"({type(error).__name__})"
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.InvalidURL)):
            return ModelError(f"{name}: cannot speak to {self.endpoint} {why}; correct the URL or its certificate")
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return TransientError(f"{name}: no connection to {self.endpoint} {why}; start the server or correct "
                                  "the URL")
        if isinstance(error, TimeoutError):
            return TransientError(f"{name}: no reply from {self.endpoint} within {self.timeout:g} s {why}",
                                  maybe_paid=True)
        return TransientError(f"{name}: {self.endpoint} broke the connection {why}", maybe_paid=True)

    def _refused(self, name: str, response: aiohttp.ClientResponse, data: bytes) -> ModelError:
        text = f"{name}: {self.endpoint} answered {response.status}: {self.without_key(_words(data))}"
        if response.status in TRANSIENT or response.status >= 500:
            return TransientError(text, retry_after=wait(response.headers.get("Retry-After")))
        return ModelError(text)


def _read(reply: dict[str, Any], messages: Messages, draws: int) -> Completions:
    """The draws and what they cost; without a usage, bounds of it from the bytes, so that no budget is overspent."""
    contents = [choice["message"].get("content") for choice in reply["choices"]][:draws]
    if not contents:
        raise ValueError("no choices")
    texts = [content if isinstance(content, str) else None for content in contents]
    usage = reply.get("usage")
    if not usage:
        return Completions(texts, prompt_tokens_bound(messages), sum(len((text or "").encode()) for text in texts))
    details = usage.get("prompt_tokens_details") or {}
    return Completions(texts, usage["prompt_tokens"], usage["completion_tokens"], details.get("cached_tokens") or 0)


def _words(data: bytes) -> str:
    """What a server says is wrong: OpenAI's error message, or the body as it stands."""
    text = data.decode(errors="replace")
    try:
        body = json.loads(text)
        error = body.get("error") or body
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, AttributeError):
        return text


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for `url`; none for this machine's own servers."""
    parts = urlsplit(url)
    if parts.hostname in ("127.0.0.1", "localhost", "::1") or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return getproxies().get(parts.scheme)
