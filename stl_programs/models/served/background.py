"""One event loop in a thread of its own, for calls from outside a run: its connections outlive the caller's loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from stl_programs.models.served.sessions import close_sessions

T = TypeVar("T")
_loop: asyncio.AbstractEventLoop | None = None
_starting = threading.Lock()
_left: list[asyncio.AbstractEventLoop] = []
"""Loops of the process that this one was forked from: their connections are shared with it, so none is closed here."""


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the background loop; block until it returns or raises."""
    future = _begin(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def awaited(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the background loop, without blocking this one."""
    return await asyncio.wrap_future(_begin(work))


def _begin(work: Coroutine[Any, Any, T]) -> Future[T]:
    global _loop
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="models", daemon=True).start()
            atexit.register(_close, _loop)
    return asyncio.run_coroutine_threadsafe(work, _loop)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(close_sessions(), loop).result(timeout=5)
    loop.call_soon_threadsafe(loop.stop)


def _forked() -> None:
    """In a child, the thread of the loop does not run: the next call starts another."""
    global _loop, _starting
    _starting = threading.Lock()
    if _loop is not None:
        _left.append(_loop)
        _loop = None
        atexit.unregister(_close)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
