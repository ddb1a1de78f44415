"""Sessions that wait in the states of a search, snapshots of them, and what was seen there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

Session = Any
"""Whatever a backend knows a session by: an id, a connection, an object."""
Place = tuple[str, tuple[str, ...]]
"""A task's id and the actions from its start: where a session stands."""


class Parking:
    """Where sessions wait: one a place, a bounded number in all; and snapshots, a bounded number too.

    A session that is taken is the taker's alone.

    Args:
        end: gives a session back. sessions, snapshots: how many are kept; those left alone longest go first.
    """

    def __init__(self, end: Callable[[Session], Awaitable[None]], sessions: int, snapshots: int):
        self.end, self.sessions, self.snapshots = end, sessions, snapshots
        self._waiting: OrderedDict[Place, Session] = OrderedDict()
        self._taken: OrderedDict[Place, Any] = OrderedDict()
        self._locks: WeakValueDictionary[Place, asyncio.Lock] = WeakValueDictionary()

    def __contains__(self, place: Place) -> bool:
        return place in self._waiting

    def take(self, place: Place) -> Session:
        """The session that waits there. Raises KeyError where none does."""
        return self._waiting.pop(place)

    async def put(self, place: Place, session: Session) -> None:
        """Let the session wait there; a second one, and one too many, is ended."""
        if place in self._waiting:
            await self.end(session)
            return
        self._waiting[place] = session
        while len(self._waiting) > self.sessions:
            _, oldest = self._waiting.popitem(last=False)
            await self.end(oldest)

    async def drop(self, session: Session) -> None:
        """End a session that something went wrong in; what went wrong is what the user is told."""
        with contextlib.suppress(Exception):
            await self.end(session)

    async def clear(self) -> None:
        """End all that wait, and forget the snapshots."""
        self._taken.clear()
        while self._waiting:
            _, session = self._waiting.popitem(last=False)
            await self.end(session)

    def has_snapshot(self, place: Place) -> bool:
        return place in self._taken

    def snapshot(self, place: Place) -> Any:
        """The one that was kept there. Raises KeyError where none was."""
        self._taken.move_to_end(place)
        return self._taken[place]

    def keep(self, place: Place, snapshot: Any) -> None:
        self._taken[place] = snapshot
        while len(self._taken) > self.snapshots:
            self._taken.popitem(last=False)

    def lock(self, place: Place) -> asyncio.Lock:
        """One a place, for as long as somebody holds it."""
        found = self._locks.get(place)
        if found is None:
            found = self._locks[place] = asyncio.Lock()
        return found


MARK = "\x00digest:"


def digest(text: str) -> str:
    """What a journal keeps of a text that has to be seen again; of a digest, itself."""
    return text if text.startswith(MARK) else MARK + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def same(then: str, now: str) -> bool:
    """Whether `now` is what was seen then, given as its text or its digest."""
    return then == now or then == digest(now)


def short(text: str, width: int = 120) -> str:
    """A text in one line, within quotes."""
    if text.startswith(MARK):
        return f"a text of digest {text.removeprefix(MARK)} (a journal kept no more of it)"
    flat = " / ".join(filter(None, map(str.strip, text.splitlines())))
    return repr(flat if len(flat) <= width else f"{flat[:width - 3]}...")
