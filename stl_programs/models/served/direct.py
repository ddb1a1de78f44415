"""A client for servers that speak OpenAI's chat protocol: one HTTP request a call, and as little else as possible."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from stl_programs.errors import ModelError, TransientError
from stl_programs.models.base import Reply, Request, compact, repeated
from stl_programs.models.served.pools import Pool, Server
from stl_programs.models.served.protocol import asked_for, read_reply
from stl_programs.models.served.remote import SEED_MASK, TIMEOUT_SECONDS, TRANSIENT, RemoteModel
from stl_programs.models.served.sessions import open_session
from stl_programs.models.served.urls import LOCAL, OPENAI, REASONING, under, wait, words

CONNECT_SECONDS = 30.0
GATEWAY = (502, 504)
"""Statuses of something between us and the server, which may have worked all the same."""


class DirectModel(RemoteModel):
    """An OpenAI-compatible chat endpoint: `openai/NAME`, or `hosted_vllm/NAME` for servers that you run.

    All draws of a call travel as one request with n, and the first draw's seed, to the least busy server. Nothing is
    retried here: where a server fails and another is up, the TransientError says that it may be sent again at once.
    Connections belong to the running event loop; `close_sessions` ends them. OpenAI's reasoning models (names that
    begin with o1, o3, o4 or gpt-5, at api.openai.com) take no temperature: it is left out, and they draw at their own.

    Args:
        name: provider and model. What follows the first "/" is the model that the server is asked for.
        api_base: URL up to and with /v1; several, with commas between them, are servers of the same model. By default
            OPENAI_API_BASE, OPENAI_BASE_URL or OpenAI's own for `openai/`, HOSTED_VLLM_API_BASE for `hosted_vllm/`.
        api_key: by default OPENAI_API_KEY or HOSTED_VLLM_API_KEY.
        timeout: seconds for one request.
        extra: further fields of every request body, like top_p.

    Example:
        >>> model = DirectModel("hosted_vllm/tiny", api_base="http://127.0.0.1:8000/v1")
        >>> (await model.complete(Request([{"role": "user", "content": "Hi"}], seeds=(0, 1), max_tokens=9))).texts
        ['Hello.', 'Good day.']
    """

    def __init__(self, name: str, *, api_base: str | None = None, api_key: str | None = None,
                 timeout: float = TIMEOUT_SECONDS, **extra: Any):
        if name.startswith("openai/"):
            api_base = api_base or os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
            api_key = api_key or os.environ.get("OPENAI_API_KEY")
        super().__init__(name, api_base=api_base, api_key=api_key, timeout=timeout, **extra)
        if self.pool is None and name.startswith("openai/"):
            self.pool = Pool(OPENAI, api_key)
            self.endpoint = self.pool.endpoint
        self._roads = {server: _Road(server, self.pool.headers(server)) for server in self.pool.servers
                       } if self.pool else {}
        self._at_openai = any(road.url.host == "api.openai.com" for road in self._roads.values())
        self._limit = "max_completion_tokens" if self._at_openai else "max_tokens"
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))

    def _may_lack_key(self) -> bool:
        return self.pool is not None and not self._at_openai

    async def complete(self, request: Request) -> Reply:
        if self.pool is None:
            raise self.no_server()
        name = request.adapter or self.name
        alike = request.temperature == 0 and self.name.startswith("hosted_vllm/")  # vLLM refuses n of them: all one
        sent = request.replace(seeds=request.seeds[:1]) if alike else request
        async with self.pool.server() as server:
            status, headers, data = await self._send(name, server, self._body(name, sent))
            if status != 200:
                raise self._refused(name, server, status, headers.get("Retry-After"), data)
            server.failures = 0
        try:
            reply = json.loads(data)
            found = read_reply(reply["choices"], reply.get("usage"), sent)
        except ModelError as error:
            raise ModelError(f"{name}: {server.address}: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise TransientError(f"{name}: {server.address} sent a reply that is cut or no chat completion "
                                 f"({type(error).__name__}, {len(data)} bytes)", maybe_paid=True) from None
        return repeated(found, len(request.seeds)) if alike else found

    def _body(self, name: str, request: Request) -> bytes:
        """The request as JSON; its messages as they were written for the journal's key."""
        fields = {"model": name.partition("/")[2], "temperature": request.temperature, self._limit: request.max_tokens,
                  "n": len(request.seeds), "seed": request.seeds[0] & SEED_MASK, **asked_for(request.options),
                  **self.extra}
        if self._at_openai and fields["model"].startswith(REASONING):
            del fields["temperature"]
        return f'{{"messages":{request.prompt},{compact(fields)[1:]}'.encode()

    async def _send(self, name: str, server: Server, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the reply."""
        road = self._roads[server]
        try:
            async with open_session().post(road.url, data=body, headers=road.headers, timeout=self._timeout,
                                       proxy=road.proxy, allow_redirects=False) as response:
                return response.status, response.headers, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._lost(name, server, error) from None

    def _lost(self, name: str, server: Server, error: Exception) -> ModelError:
        """No reply came. Unsent requests are not paid for; a certificate or URL does not mend by itself."""
        why, at = f"({type(error).__name__})", server.address
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.InvalidURL)):
            return ModelError(f"{name}: cannot speak to {at} {why}; correct the URL or its certificate")
        elsewhere = self.pool.lost(server) if self.pool else None
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return TransientError(f"{name}: no connection to {at} {why}; start the server or correct the URL",
                                  retry_after=elsewhere)
        if isinstance(error, TimeoutError):
            return TransientError(f"{name}: no reply from {at} within {self.timeout:g} s {why}",
                                  retry_after=elsewhere, maybe_paid=True)
        return TransientError(f"{name}: {at} broke the connection {why}", retry_after=elsewhere, maybe_paid=True)

    def _refused(self, name: str, server: Server, status: int, retry_after: str | None, data: bytes) -> ModelError:
        text = f"{name}: {server.address} answered {status}: {self.without_key(words(data))}"
        if status == 404 and name.partition("/")[2] in server.adapters:  # it was started anew: it gets them again
            server.returning = True
            return TransientError(text, retry_after=0.0)
        if status >= 500 and self.pool:
            self.pool.refused(server)
        if status in TRANSIENT or status >= 500:
            return TransientError(text, retry_after=wait(retry_after) or None, maybe_paid=status in GATEWAY)
        return ModelError(text)


class _Road:
    """How one server is reached."""

    def __init__(self, server: Server, authorization: dict[str, str]):
        self.url = URL(under(server.url, "chat/completions"))
        self.headers = {"Content-Type": "application/json", **authorization}
        self.proxy = _proxy(server.url)


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for `url`; none for this machine's own servers."""
    parts = urlsplit(url)
    if parts.hostname in LOCAL or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return getproxies().get(parts.scheme)
