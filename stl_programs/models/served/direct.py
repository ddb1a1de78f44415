"""A client for servers that speak OpenAI's chat protocol: one HTTP request a call, and as little else as possible."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from stl_programs.errors import AskOtherwise, ModelError, TransientError
from stl_programs.models.base import Reply, Request, compact, repeated
from stl_programs.models.served.http import Answer, Unreadable, environment, fetch, proxy_of
from stl_programs.models.served.options import LIMITS, check_json
from stl_programs.models.served.pools import Pool, Server
from stl_programs.models.served.protocol import ErrorInside, asked_for, read_body
from stl_programs.models.served.remote import SEED_MASK, TRANSIENT, RemoteModel
from stl_programs.models.served.urls import OPENAI, REASONING, under, wait, words

GATEWAY = (502, 504)
"""Statuses of something between us and the server, which may have worked all the same."""
REFUSED_FIELD = (400, 422)
"""Statuses of a server that does not take a field of the request."""
ONE_DRAW = re.compile(r"\bn\b|\bchoices?\b|\bcompletions?\b.{0,40}\b(one|1|single|allowed|supported)\b|greedy|best_of|"
                      r"candidate", re.IGNORECASE)
"""How servers say that they give one draw only."""


UNKNOWN_FIELD = re.compile(r"extra inputs|unsupported|not supported|unknown|unrecognized|unexpected|not permitted",
                           re.IGNORECASE)


class DirectModel(RemoteModel):
    """An OpenAI-compatible chat endpoint: `openai/NAME`, or `hosted_vllm/NAME` for servers that you run.

    All draws of a call travel as one request with n, and the first draw's seed, to the least busy server. A server that
    refuses n is asked for one draw after the other; one that refuses seeds gets none, with a warning; one that wants
    "max_completion_tokens" gets that. Nothing else is retried here: where a server fails and another is up, the
    TransientError says that it may be sent again at once. Connections belong to the running event loop;
    `close_sessions` ends them. OpenAI's reasoning models (names that begin with o1, o3, o4 or gpt-5, at
    api.openai.com) take no temperature: it is left out, and they draw at their own.

    Args:
        name: provider and model. What follows the first "/" is the model that the server is asked for.
        api_base: URL up to and with /v1; several, with commas between them, are servers of the same model. By default
            OPENAI_API_BASE, OPENAI_BASE_URL or OpenAI's own for `openai/`, HOSTED_VLLM_API_BASE for `hosted_vllm/`.
        api_key: by default OPENAI_API_KEY or HOSTED_VLLM_API_KEY.
        options: see `connection`: timeout, headers, extra_query, extra_body, additional_drop_params, and further fields
            of every request body, like top_p.

    Example:
        >>> model = DirectModel("hosted_vllm/tiny", api_base="http://127.0.0.1:8000/v1")
        >>> (await model.complete(Request([{"role": "user", "content": "Hi"}], seeds=(0, 1), max_tokens=9))).texts
        ['Hello.', 'Good day.']
    """

    def __init__(self, name: str, **options: Any):
        super().__init__(name, **options)
        check_json(name, self.extra)
        if self.pool is None and name.startswith("openai/"):
            self.pool = Pool(OPENAI, self._api_key, self.options.headers)
            self.endpoint = self.pool.endpoint
        self._roads = {server: _Road(server, self.pool.headers(server), self.options.query)
                       for server in self.pool.servers} if self.pool else {}
        self._at_openai = any(road.url.host == "api.openai.com" for road in self._roads.values())
        self._limit = self.options.limit or ("max_completion_tokens" if self._at_openai else "max_tokens")
        self._one_draw: set[bool] = set()
        """Whether a server refused n above 1: at temperature 0 (True), above it (False)."""
        self._left_out = set(self.options.left_out)

    @staticmethod
    def surroundings(name: str) -> tuple[str | None, ...]:
        if name.startswith("openai/"):
            base, url, key = environment("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_API_KEY")
            return base or url, key
        return RemoteModel.surroundings(name)

    def _may_lack_key(self) -> bool:
        return self.pool is not None and not self._at_openai

    async def complete(self, request: Request) -> Reply:
        if self.pool is None:
            raise self.no_server()
        name = request.adapter or self.name
        alike = request.temperature == 0 and self.name.startswith("hosted_vllm/")  # vLLM refuses n of them: all one
        one = alike or "n" in self._left_out or (request.temperature == 0) in self._one_draw
        sent = request.replace(seeds=request.seeds[:1]) if one else request
        async with self.pool.server() as server:
            asked, left_out = self._limit, frozenset(self._left_out)
            answer = await self._send(name, server, self._body(name, sent))
            if answer.status in REFUSED_FIELD:
                self._ask_otherwise(words(answer.data), sent, asked, left_out)
            if answer.status != 200:
                raise self._refused(name, server, answer.status, answer.headers, words(answer.data))
            server.failures = 0
        try:
            found = read_body(answer.data, sent)
        except ErrorInside as error:
            raise self._refused(name, server, error.status or 500, answer.headers, words(error.error), inside=True
                                ) from None
        except ModelError as error:
            raise ModelError(f"{name}: {server.address}: {error}") from None
        except ValueError:
            raise TransientError(f"{name}: {server.address} sent a reply that is cut or no chat completion "
                                 f"({len(answer.data)} bytes: {self.without_key(words(answer.data))[:80]!r})",
                                 maybe_paid=True) from None
        return repeated(found, len(request.seeds)) if alike else found

    def _body(self, name: str, request: Request) -> bytes:
        """The request as JSON; its messages as they were written for the journal's key."""
        fields = {"model": name.partition("/")[2], "temperature": request.temperature, self._limit: request.max_tokens,
                  "n": len(request.seeds), "seed": request.seeds[0] & SEED_MASK, **asked_for(request.options),
                  **self.extra}
        if self._at_openai and fields["model"].startswith(REASONING):
            del fields["temperature"]
        for field in self._left_out:
            fields.pop(field, None)
        return f'{{"messages":{request.prompt},{compact(fields)[1:]}'.encode()

    def _ask_otherwise(self, said: str, request: Request, limit: str, left_out: frozenset[str]) -> None:
        """Raises AskOtherwise where a server refuses a field that can be done without, and that it was sent."""
        newer, older = LIMITS
        if limit == older and self.options.limit is None and older in said and newer in said:
            self._limit = newer
        elif len(request.seeds) > 1 and ONE_DRAW.search(said):
            self._one_draw |= {request.temperature == 0}
        elif "seed" not in left_out and re.search(r"\bseed\b", said):
            if "seed" not in self._left_out:
                warnings.warn(f"{self.name}: the server takes no seed, so its draws do not repeat", stacklevel=2)
            self._left_out.add("seed")
        elif request.temperature == 1 and "temperature" not in left_out and "temperature" in said:
            self._left_out.add("temperature")  # it draws at its own, which the ones that refuse it say is 1
        else:
            return
        raise AskOtherwise(said)

    async def _send(self, name: str, server: Server, body: bytes) -> Answer:
        road = self._roads[server]
        try:
            return await fetch("POST", road.url, road.headers, body, self.timeout, road.proxy)
        except (aiohttp.ClientError, Unreadable, TimeoutError, ValueError, OSError) as error:
            raise self._lost(name, server, error) from None

    def _lost(self, name: str, server: Server, error: Exception) -> ModelError:
        """No reply came. Unsent requests are not paid for; a certificate or URL does not mend by itself."""
        why, at = f"({type(error).__name__})", server.address
        if isinstance(error, Unreadable):
            return ModelError(f"{name}: {at} sent {error}", maybe_paid=True)
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

    def _refused(self, name: str, server: Server, status: int, headers: Mapping[str, str], said: str, *,
                 inside: bool = False) -> ModelError:
        """The error of a status; `inside`: of one that stands in a body under a status that says that all is well."""
        text = f"{name}: {server.address} answered {'with an error, ' * inside}{status}: {self.without_key(said)}"
        if status == 404 and name.partition("/")[2] in server.adapters:  # it was started anew: it gets them again
            server.returning = True
            return TransientError(text, retry_after=0.0)
        if 300 <= status < 400:
            return ModelError(f"{text}; it is at another URL, and no key is sent after it: give that one as api_base")
        if status >= 500 and self.pool:
            self.pool.refused(server)
        if status in TRANSIENT or status >= 500:
            return TransientError(text, retry_after=wait(headers.get("Retry-After")) or None,
                                  maybe_paid=inside or status in GATEWAY)
        if status in REFUSED_FIELD and UNKNOWN_FIELD.search(said):
            text += "; a field that the server does not take can be left out with additional_drop_params=[NAME]"
        return ModelError(text)


class _Road:
    """How one server is reached."""

    def __init__(self, server: Server, authorization: dict[str, str], query: dict[str, str]):
        url = URL(under(server.url, "chat/completions"))
        self.url = url.update_query(query) if query else url
        self.headers = {"Content-Type": "application/json", **authorization}
        self.proxy = proxy_of(server.url)
