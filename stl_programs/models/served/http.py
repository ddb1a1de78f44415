"""One HTTP request, bounded in bytes and in time; the same route for checks, calls and adapters."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import BaseModel, BeforeValidator, ValidationError

from stl_programs.errors import ModelError
from stl_programs.models.served.background import wait_for
from stl_programs.models.served.sessions import open_session
from stl_programs.models.served.urls import LOCAL, address, is_base_url

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

LONGEST = 64 * 2**20
"""Bytes of a body, unpacked: no reply that was asked for is longer."""
TOO_LONG = f"a body of more than {LONGEST // 2**20} MiB"
CONNECT_SECONDS = 30.0


class NoAnswer(Exception):
    """A server gave no answer, or none that can be read; the text is the kind of error, which names no URL."""


class Unreadable(Exception):
    """A body that is too long, or packed in a way that was not asked for."""


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    def models(self) -> dict[str, Listed] | None:
        """The models that it lists, by name; None for what is no list of models."""
        try:
            rows = _List.model_validate_json(self.data).data if self.status == 200 else None
        except ValidationError:
            return None
        return None if rows is None else {row.id: row for row in rows if row.id}


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) else None


def _size(found: Any) -> int | None:
    return found if type(found) is int and 0 < found < 2**40 else None


class Listed(BaseModel):
    """One entry of a list of models; what is absent or no such thing is None."""

    id: Annotated[str | None, BeforeValidator(_text)] = None
    root: Annotated[str | None, BeforeValidator(_text)] = None
    parent: Annotated[str | None, BeforeValidator(_text)] = None
    max_model_len: Annotated[int | None, BeforeValidator(_size)] = None


class _List(BaseModel):
    data: list[Annotated[Listed, BeforeValidator(lambda found: found if isinstance(found, dict) else {})]]


async def fetch(method: str, url: URL, headers: Mapping[str, str], body: bytes | None, seconds: float,
                proxy: str | None) -> Answer:
    """The answer, read to its end within `seconds` in all. No redirect is followed: a key stays with its server.

    Raises aiohttp.ClientError, TimeoutError, and Unreadable for a body beyond `LONGEST`.
    """
    import aiohttp

    if url.user is not None and any(name.lower() == "authorization" for name in headers):
        url = url.with_user(None)  # what the user wrote as a header goes before what the URL says
    limit = aiohttp.ClientTimeout(total=seconds, sock_connect=min(CONNECT_SECONDS, seconds))
    async with open_session().request(method, url, data=body, headers=headers, timeout=limit, proxy=proxy,
                                      allow_redirects=False) as response:
        return Answer(response.status, response.headers, await _body(response))


def ask(method: str, url: str, headers: Mapping[str, str], seconds: float,
        body: dict[str, Any] | None = None) -> Answer:
    """The same from ordinary code. Raises NoAnswer, and ModelError for a proxy that is not spoken to."""
    import aiohttp
    from yarl import URL

    sent = dict(headers) | ({} if body is None else {"Content-Type": "application/json"})
    data = None if body is None else json.dumps(body).encode()
    proxy = proxy_of(url)
    try:
        return wait_for(fetch(method, URL(url), sent, data, seconds, proxy))
    except (aiohttp.ClientError, Unreadable, TimeoutError, ValueError, OSError) as error:
        raise NoAnswer(type(error).__name__) from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The unpacked body. What is packed is unpacked piece by piece, so that a small one cannot become a huge one."""
    packed = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("identity", "", "gzip", "deflate"):
        raise Unreadable(f"a body packed with {packed[:20]!r}, which was not asked for")
    unpack = zlib.decompressobj(wbits=47) if packed in ("gzip", "deflate") else None
    parts, size = [], 0
    async for piece in response.content.iter_any():
        part = piece if unpack is None else _unpacked(unpack, piece, LONGEST + 1 - size)
        size += len(part)
        if size > LONGEST:
            raise Unreadable(TOO_LONG)
        parts.append(part)
    if unpack is not None and not unpack.eof:
        raise Unreadable("a packed body that is cut")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unpacked(unpack: zlib._Decompress, piece: bytes, most: int) -> bytes:
    try:
        return unpack.decompress(piece, most)
    except zlib.error as error:
        raise Unreadable(f"a body that cannot be unpacked: {error}") from None


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for `url`; none for this machine's own servers.

    Raises ModelError for one that is not spoken to here (SOCKS), rather than going past it.
    """
    parts = urlsplit(url)
    if parts.hostname in LOCAL or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy:
        return None
    if not is_base_url(proxy if "://" in proxy else f"http://{proxy}"):
        kind = proxy.partition("://")[0] if "://" in proxy else "unreadable"
        raise ModelError(f"the environment names a {kind} proxy for {address(url)}; only http:// and https:// proxies "
                         f"are spoken to: set {parts.scheme.upper()}_PROXY to one, or name the host in NO_PROXY")
    return proxy if "://" in proxy else f"http://{proxy}"


def environment(*names: str) -> tuple[str | None, ...]:
    """What the environment says under `names` now; empty is unset."""
    return tuple(os.environ.get(name) or None for name in names)
