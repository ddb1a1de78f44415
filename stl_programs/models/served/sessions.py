"""The HTTP connections of a running event loop, shared by all models that are served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import aiohttp

_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()


async def close_sessions() -> None:
    """Close the connections of the running event loop."""
    if (session := _sessions.pop(asyncio.get_running_loop(), None)) is not None:
        await session.close()


def open_session() -> aiohttp.ClientSession:
    """The session of the running event loop. All models share it; the engine bounds how many requests are in flight."""
    import aiohttp

    loop = asyncio.get_running_loop()
    session = _sessions.get(loop)
    if session is None:
        for closed in [other for other in _sessions if other.is_closed()]:
            _sessions.pop(closed).detach()
        session = _sessions[loop] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            headers={"Accept-Encoding": "identity"})
    return session
