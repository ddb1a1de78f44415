"""LiteLLM, imported when it is first needed (the import takes seconds), and held: no key follows a redirect, no body
is without end."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from stl_programs.models.served import http
from stl_programs.secrets import know_fields

PAST_HTTPX = ("aiohttp_openai/",)
"""Providers that LiteLLM asks past httpx, which cannot be held."""
_held: ContextVar[Hold | None] = ContextVar("held", default=None)


def the_litellm() -> Any:
    """The module litellm, with the prices that ship with it: nothing is fetched at import."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    return litellm


class Hold:
    """What httpx, by which LiteLLM speaks to providers, is held to during one request. `cut`: a body was too long."""

    def __init__(self) -> None:
        self.cut = False


@contextmanager
def held() -> Iterator[Hold]:
    """Within the block httpx follows no redirect, and reads no body of more than `http.LONGEST` bytes, unpacked.

    LiteLLM's own clients follow redirects, with a key in a header of the provider's own, to wherever a server points,
    and read whatever comes.
    """
    _hold_httpx()
    hold = Hold()
    token = _held.set(hold)
    try:
        yield hold
    finally:
        _held.reset(token)


@functools.cache
def _hold_httpx() -> None:
    import httpx

    httpx.Client.send = _led_nowhere(httpx.Client.send)  # type: ignore[method-assign]
    httpx.AsyncClient.send = _bounded_too(httpx.AsyncClient.send)  # type: ignore[method-assign]


def _led_nowhere(send: Any) -> Any:
    @functools.wraps(send)
    def sent(client: Any, request: Any, **options: Any) -> Any:
        return send(client, request, **(options | {"follow_redirects": False} if _held.get() else options))

    return sent


def _bounded_too(send: Any) -> Any:
    @functools.wraps(send)
    async def sent(client: Any, request: Any, *, stream: bool = False, **options: Any) -> Any:
        if (hold := _held.get()) is None:
            return await send(client, request, stream=stream, **options)
        response = await send(client, request, **options | {"stream": True, "follow_redirects": False})
        response.aiter_bytes = _bounded(response.aiter_bytes, hold)
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response

    return sent


def _bounded(pieces: Any, hold: Hold) -> Any:
    async def read(chunk_size: int | None = None) -> AsyncIterator[bytes]:
        size = 0
        async for piece in pieces(chunk_size):
            size += len(piece)
            if size > http.LONGEST:
                hold.cut = True
                raise http.Unreadable(http.TOO_LONG)
            yield piece

    return read


def know_keys() -> None:
    """Keys that were set on the module itself, like `litellm.api_key`, are secrets like those of the environment."""
    litellm = the_litellm()
    know_fields({name: value for name in _key_names() if (value := getattr(litellm, name, None))})


@functools.cache
def _key_names() -> tuple[str, ...]:
    return (*(name for name in vars(the_litellm()) if name.endswith("_key")), "headers")
