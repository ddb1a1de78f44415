"""LiteLLM, imported when it is first needed (the import takes seconds), and held: no key follows a redirect."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from stl_programs.secrets import know_fields

PAST_HTTPX = ("aiohttp_openai/",)
"""Providers that LiteLLM asks past httpx, which cannot be held."""
_held: ContextVar[bool] = ContextVar("held", default=False)


def the_litellm() -> Any:
    """The module litellm, with the prices that ship with it: nothing is fetched at import."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    return litellm


@contextmanager
def without_redirects() -> Iterator[None]:
    """Within the block httpx, by which LiteLLM speaks to providers, follows no redirect.

    LiteLLM's own clients follow them, with a key in a header of the provider's own, to wherever a server points.
    """
    _hold_httpx()
    token = _held.set(True)
    try:
        yield
    finally:
        _held.reset(token)


@functools.cache
def _hold_httpx() -> None:
    import httpx

    for kind in (httpx.Client, httpx.AsyncClient):
        kind.send = _holding(kind.send)  # type: ignore[method-assign]


def _holding(send: Any) -> Any:
    @functools.wraps(send)
    def sent(client: Any, request: Any, **options: Any) -> Any:
        return send(client, request, **(options | {"follow_redirects": False} if _held.get() else options))

    return sent


def know_keys() -> None:
    """Keys that were set on the module itself, like `litellm.api_key`, are secrets like those of the environment."""
    litellm = the_litellm()
    know_fields({name: value for name in _key_names() if (value := getattr(litellm, name, None))})


@functools.cache
def _key_names() -> tuple[str, ...]:
    return (*(name for name in vars(the_litellm()) if name.endswith("_key")), "headers")
