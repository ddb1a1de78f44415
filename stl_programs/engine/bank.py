"""Who may reserve next: calls wait in lines, and are served in the order of their tasks as soon as their cost fits."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from stl_programs.engine.budget import Cost, Ledger

Rank = tuple[int, int]
"""A call's task, and its arrival: lower goes first."""


@dataclass(slots=True, order=True)
class _Call:
    """A waiting call. Its `turn` ends when its cost is reserved, or with the reason why it never will be."""

    rank: Rank
    cost: Cost = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class _Line:
    """The waiting calls of the same ledgers, a heap; `at` is the ledger that the first of them waits for."""

    __slots__ = ("at", "calls", "ledgers")

    def __init__(self, ledgers: tuple[Ledger, ...], at: Ledger):
        self.ledgers, self.at, self.calls = ledgers, at, list[_Call]()


class Bank:
    """Reserves a cost in several ledgers at once, waiting while requests in flight may still give some back.

    A call passes none of an earlier task that waits for a ledger of its own, so nobody starves. Only the first of a
    line is looked at, and only when a ledger that it waits for was given something back: O(log n) for n waiting calls.

    What makes that safe: the first of all lines at a ledger lacks something there that is reserved by others. They
    settle, and that looks at it again.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[Ledger, ...], _Line] = {}
        self._at: dict[Ledger, list[tuple[Rank, _Line]]] = {}
        """Where lines wait, by the rank of their first call; entries that a line has left are skipped."""
        self._arrived = 0

    async def reserve(self, ledgers: Sequence[Ledger], cost: Cost, order: int = 0) -> None:
        """Waits for its turn; calls of lower `order` go first. Raises BudgetSpent where `cost` cannot fit any more."""
        bounded = tuple(ledger for ledger in ledgers if ledger.limits)
        self._arrived += 1
        rank = order, self._arrived
        _refuse_hopeless(bounded, cost)
        blocked = self._blocked_at(bounded, cost, rank)
        if blocked is None:
            _reserve(bounded, cost)
            return
        call = _Call(rank, cost, asyncio.get_running_loop().create_future())
        self._join(bounded, call, blocked)
        try:
            await call.turn
        except asyncio.CancelledError:
            if call.turn.done() and not call.turn.cancelled() and call.turn.exception() is None:
                self.settle(bounded, cost, Cost())  # its turn had come
            elif (line := self._lines.get(bounded)) is not None:
                self._leave(line, call)
            raise

    def settle(self, ledgers: Sequence[Ledger], bound: Cost, actual: Cost) -> None:
        """Give back a reserved `bound`, book what was really used, and serve whom that lets through."""
        for ledger in ledgers:
            ledger.settle(bound, actual)
        for ledger in ledgers:
            self._serve(ledger)

    # Lines

    def _blocked_at(self, ledgers: tuple[Ledger, ...], cost: Cost, rank: Rank) -> Ledger | None:
        """The first ledger where `cost` lacks something, or where a call of lower rank waits."""
        for ledger in ledgers:
            if ((first := self._first(ledger)) is not None and first[0] < rank) or ledger.lacking(cost) is not None:
                return ledger
        return None

    def _first(self, ledger: Ledger) -> tuple[Rank, _Line] | None:
        """The line at `ledger` whose first call has the lowest rank."""
        queue = self._at.get(ledger)
        while queue:
            rank, line = queue[0]
            if line.at is ledger and line.calls and line.calls[0].rank == rank:
                return queue[0]
            heapq.heappop(queue)
        self._at.pop(ledger, None)
        return None

    def _join(self, ledgers: tuple[Ledger, ...], call: _Call, blocked: Ledger) -> None:
        line = self._lines.get(ledgers)
        if line is None:
            line = self._lines[ledgers] = _Line(ledgers, blocked)
        heapq.heappush(line.calls, call)
        if line.calls[0] is call:
            before = line.at
            self._place(line, blocked)
            if before is not blocked:
                self._serve(before)

    def _place(self, line: _Line, at: Ledger) -> None:
        """Let `line` wait at a ledger, under the rank of its first call. A line without calls ends."""
        while line.calls and line.calls[0].turn.done():  # cancelled while it waited
            heapq.heappop(line.calls)
        if line.calls:
            line.at = at
            heapq.heappush(self._at.setdefault(at, []), (line.calls[0].rank, line))
        elif self._lines.get(line.ledgers) is line:
            del self._lines[line.ledgers]

    def _leave(self, line: _Line, call: _Call) -> None:
        """`call` was cancelled. Those behind it may cost less."""
        if line.calls and line.calls[0] is call:
            self._place(line, line.at)
            self._serve(line.at)

    def _serve(self, ledger: Ledger) -> None:
        """Serve the lines at `ledger` in order, until the first of them has to wait there."""
        while (first := self._first(ledger)) is not None:
            rank, line = first
            call = line.calls[0]
            if not call.turn.done():
                if (why := _hopeless(line.ledgers, call.cost)) is not None:
                    call.turn.set_exception(why)
                elif (blocked := self._blocked_at(line.ledgers, call.cost, rank)) is None:
                    _reserve(line.ledgers, call.cost)
                    call.turn.set_result(None)
                elif blocked is ledger:
                    return
                else:
                    self._place(line, blocked)
                    continue
            self._place(line, ledger)


def _reserve(ledgers: Sequence[Ledger], cost: Cost) -> None:
    for ledger in ledgers:
        ledger.reserve(cost)


def _hopeless(ledgers: Sequence[Ledger], cost: Cost) -> Exception | None:
    """Why `cost` will never fit, whatever the requests in flight give back; None where it may."""
    for ledger in ledgers:
        if (name := ledger.hopeless(cost)) is not None:
            return ledger.refusal(name, cost)
    return None


def _refuse_hopeless(ledgers: Sequence[Ledger], cost: Cost) -> None:
    if (why := _hopeless(ledgers, cost)) is not None:
        raise why
