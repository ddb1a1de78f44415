"""HTTP for worlds behind a server: bounded in bytes and seconds, and one line for whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from stl_programs.errors import SettingError, StlError, TransientError
from stl_programs.outside import parse_json, parsed, shown

if TYPE_CHECKING:
    import httpx

Schema = TypeVar("Schema", bound=BaseModel)
LONGEST = 16 * 2**20
"""Bytes of a body, unpacked."""
MOST_WAIT = 60.0
"""Seconds that a server may ask to wait before a request is sent again."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


class Web:
    """One server. Its connections belong to an event loop, and are made when they are first needed.

    Args:
        url: of the server, `http://` or `https://`; no user and password in it.
        what: what it should be, as errors say it: "a WebShop server".
        seconds: that a request may take in all.
        agent: the User-Agent.

    Raises SettingError for what is no address.
    """

    def __init__(self, url: str, what: str, seconds: float = 30.0, agent: str = "stl-programs"):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise SettingError(f"{shown(url)} is no address of {what}: write http://HOST:PORT, without a user in it")
        self.url, self.what, self.seconds, self.agent = url.rstrip("/"), what, seconds, agent
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def text(self, path: str, **query: Any) -> str:
        """The body of a GET as text."""
        return (await self._ask("GET", path, query, None)).decode("utf-8", "replace")

    async def read(self, schema: type[Schema], path: str, **query: Any) -> Schema:
        """The JSON of a GET as what `schema` describes."""
        return self._parsed(schema, path, await self._ask("GET", path, query, None))

    async def post(self, schema: type[Schema], path: str, content: dict[str, Any]) -> Schema:
        """The JSON answer to a POST of JSON."""
        return self._parsed(schema, path, await self._ask("POST", path, {}, content))

    def _parsed(self, schema: type[Schema], path: str, body: bytes) -> Schema:
        label = f"{self.url}{path} does not answer as {self.what}"
        found = parse_json(body, label)
        return parsed(schema, found if isinstance(found, dict) else {"root": found}, label)

    async def _ask(self, method: str, path: str, query: dict[str, Any], content: dict[str, Any] | None) -> bytes:
        """The body of an answer of success.

        Raises TransientError where the same may pass later (busy, lost, too late), StlError for another answer.
        """
        import httpx

        where = f"{self.what} at {self.url}"
        try:
            async with asyncio.timeout(self.seconds):
                request = self._client().build_request(method, self.url + path, params=query or None, json=content)
                reply = await self._client().send(request, stream=True)
                try:
                    body = await self._body(reply)
                finally:
                    await reply.aclose()
        except TimeoutError:
            raise TransientError(f"{where} did not answer within {self.seconds:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as failure:
            raise StlError(f"{shown(path)} is no address of {where}: {failure}") from None
        except httpx.HTTPError as failure:
            raise TransientError(f"{where} cannot be reached or broke off ({type(failure).__name__}); is it running?"
                                 ) from None
        if reply.status_code == 200:
            return body
        text = shown(body[:200].decode("utf-8", "replace"))
        said = f"{where} answers {method} {shown(path)} with status {reply.status_code}: {text}"
        if reply.status_code in BUSY:
            raise TransientError(said, retry_after=_wait(reply.headers.get("Retry-After")))
        raise StlError(f"{said}; look at the server, and at whether it is the right one")

    async def _body(self, reply: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in reply.aiter_bytes():
            body += chunk
            if len(body) > LONGEST:
                raise StlError(f"{self.what} at {self.url} sent more than {LONGEST // 2**20} MiB; look at what it is")
        return bytes(body)

    def _client(self) -> httpx.AsyncClient:
        import httpx

        loop = asyncio.get_running_loop()
        if (found := self._clients.get(loop)) is None:
            found = self._clients[loop] = httpx.AsyncClient(
                headers={"User-Agent": self.agent}, timeout=self.seconds, follow_redirects=False,
                trust_env=urlsplit(self.url).hostname not in ("127.0.0.1", "localhost", "::1"))
        return found

    async def aclose(self) -> None:
        """Close the connections of this event loop; others are made when they are needed."""
        if (client := self._clients.pop(asyncio.get_running_loop(), None)) is not None:
            with contextlib.suppress(Exception):
                await client.aclose()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _clients=WeakKeyDictionary())


def _wait(header: str | None) -> float | None:
    """The seconds that a Retry-After asks for, at most MOST_WAIT; None where it says none."""
    with contextlib.suppress(TypeError, ValueError):
        if 0 <= (seconds := float(header or "")) < float("inf"):
            return min(seconds, MOST_WAIT)
    return None
