"""Bounds on requests in flight: per endpoint and in all. Waiting requests of earlier tasks go first."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager


class Gate:
    """`limit` requests at once to an endpoint (`limits` sets single ones apart), `total` to all of them.

    An endpoint of several servers is their URLs with commas between them; it may hold `limit` for each of them.
    """

    def __init__(self, limit: int, total: int | None = None, limits: Mapping[str, int] | None = None):
        self.limit, self.total, self.limits = limit, total, dict(limits or {})
        self.in_flight = 0
        self._flying: dict[str, int] = defaultdict(int)
        self._queues: dict[str, list[tuple[int, int, asyncio.Future[None]]]] = defaultdict(list)
        self._count = 0

    @asynccontextmanager
    async def slot(self, endpoint: str | None, order: int) -> AsyncIterator[None]:
        """Hold one request's place. `endpoint` None: a model in this process, which batches and is not bounded."""
        if endpoint is None:
            yield
            return
        if self._free(endpoint):
            self._take(endpoint)
        else:
            turn = asyncio.get_running_loop().create_future()
            self._count += 1
            heapq.heappush(self._queues[endpoint], (order, self._count, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give(endpoint)
                raise
        try:
            yield
        finally:
            self._give(endpoint)

    def _free(self, endpoint: str) -> bool:
        servers = endpoint.count(",") + 1
        return (self._flying[endpoint] < self.limits.get(endpoint, self.limit * servers)
                and (self.total is None or self.in_flight < self.total))

    def _take(self, endpoint: str) -> None:
        self.in_flight += 1
        self._flying[endpoint] += 1

    def _give(self, endpoint: str) -> None:
        """Free one place, and hand it to the earliest waiting request that it lets through.

        Where no total was reached, only requests to this endpoint can have waited for it.
        """
        full = self.total is not None and self.in_flight >= self.total
        self.in_flight -= 1
        self._flying[endpoint] -= 1
        ready = [(queue[0][:2], name) for name in (list(self._queues) if full else [endpoint])
                 if (queue := self._waiting(name)) and self._free(name)]
        if ready:
            _, name = min(ready)
            turn = heapq.heappop(self._queues[name])[2]
            self._take(name)
            turn.set_result(None)

    def _waiting(self, endpoint: str) -> list[tuple[int, int, asyncio.Future[None]]]:
        """The requests that wait for `endpoint`, a heap; those that were cancelled are dropped from its top."""
        queue = self._queues.get(endpoint, [])
        while queue and queue[0][2].done():
            heapq.heappop(queue)
        if not queue:
            self._queues.pop(endpoint, None)
        return queue
