"""What journals hold: replies and steps by key, finished tasks, what was paid for, and what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from stl_programs.engine.budget import Cost
from stl_programs.engine.rows import Caller, FailedRow, ReplyRow, ResultRow, Row, SentRow, StepRow
from stl_programs.models.base import Reply
from stl_programs.records import TaskResult, Usage


@dataclass(frozen=True, slots=True)
class Recorded:
    """A reply that was already paid for, and by whom (None: an old journal does not say); on which line it stands."""

    reply: Reply
    seconds: float
    dollars: float | None = None
    caller: Caller | None = None
    line: int = 0

    @property
    def usage(self) -> Usage:
        reply = self.reply
        return Usage(calls=1, bounded_calls=int(reply.bounds), samples=len(reply.texts),
                     prompt_tokens=reply.prompt_tokens,
                     cached_tokens=reply.cached_tokens, completion_tokens=reply.completion_tokens,
                     seconds=self.seconds, dollars=self.dollars)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that left for a server: whose it was, and the most that it may have cost."""

    key: str
    caller: Caller
    bound: Cost
    line: int = 0


class DamagedLine(NamedTuple):
    """A line of a journal that is not used, by its number in the file."""

    path: str
    number: int
    why: str


def lost(bound: Cost) -> Usage:
    """A request whose reply never came whole: the provider may have charged up to `bound`."""
    return Usage(failed_calls=1, possibly_paid_calls=1, possibly_paid_tokens=bound.tokens,
                 possibly_paid_dollars=bound.dollars)


class Replies(dict[str, Recorded]):
    """Replies by key; also by who paid for them."""

    def __init__(self) -> None:
        super().__init__()
        self._paid: dict[tuple[int, str], list[str]] = {}

    def __setitem__(self, key: str, reply: Recorded) -> None:
        super().__setitem__(key, reply)
        if reply.caller is not None:
            self._paid.setdefault(reply.caller[:2], []).append(key)

    def paid_by(self, seed: int, task: str) -> list[str]:
        """The keys of what one trial paid for; asked for once."""
        return self._paid.pop((seed, task), [])


class Recording:
    """What journals hold, whatever the order of their lines: of two replies or steps of one key, the one that was
    written first; of two results of one task, the last."""

    def __init__(self) -> None:
        self.replies = Replies()
        self.steps: dict[str, dict[str, Any]] = {}
        self.results: dict[tuple[int, str], TaskResult] = {}
        self.budgets: dict[tuple[int, str], dict[str, float] | None] = {}
        """Of each of these tasks, which may have ended its search."""
        self.unanswered: dict[str, list[Sent]] = {}
        self.failed: list[Sent] = []
        """Requests that failed and may have been charged for, as they were sent."""
        self.refused: list[Sent] = []
        """Those that failed and were surely not charged for."""
        self.damaged: list[DamagedLine] = []
        """Lines that could not be read."""
        self.missing = 0
        """Lines that were written, and could not be read or are gone."""
        self.untold = Cost()
        """The most that requests may have cost of which the line was lost, so that nobody knows whose they were."""
        self._early: Counter[tuple[str, Caller]] = Counter()
        self._unused: list[Recorded] = []
        self._lines: dict[tuple[str, str], int] = {}
        self._largest = Cost(1)

    def take(self, row: Row, line: int) -> None:
        """What one line says; `line` orders it among the others of its journal."""
        if isinstance(row, ReplyRow):
            self._reply(row, line)
        elif isinstance(row, SentRow):
            self._sent(Sent(row.sent, row.named, row.cost, line))
        elif isinstance(row, FailedRow):
            self._fail(row, line)
        elif isinstance(row, StepRow):
            if self._first(("step", row.step), line, row.step in self.steps):
                self.steps[row.step] = row.transition
        elif isinstance(row, ResultRow):
            self._result(row, line)

    def spent(self) -> dict[tuple[int, str], dict[tuple[str, str], Usage]]:
        """What every trial (seed, task) has cost so far, by role and model: replies, and requests that brought none."""
        bills: dict[tuple[int, str], dict[tuple[str, str], Usage]] = {}
        for caller, usage in self._bills():
            trial = bills.setdefault((caller.seed, caller.task), {})
            trial.setdefault((caller.role, caller.model), Usage()).add(usage)
        return bills

    def forget(self, seed: int, task: str) -> list[str]:
        """Drop the replies that one trial paid for; returns their keys."""
        keys = self.replies.paid_by(seed, task)
        for key in keys:
            self.replies.pop(key, None)
        return keys

    @property
    def possibly_paid(self) -> list[Sent]:
        """Requests whose reply was never seen: the provider may have charged for them."""
        return [*self.failed, *(sent for rows in self.unanswered.values() for sent in rows)]

    def close(self, sent: int, missing: int) -> int:
        """At the end of a journal: `sent` of its requests and `missing` of its lines are known by their count alone.

        Those that were answered on another line are known after all. Returns how many are not: each is taken to have
        cost as much as the largest that is known.
        """
        untold = max(0, sent - self._early.total())
        self._early.clear()
        self._lines.clear()
        self.missing += missing
        largest, before = self._largest, self.untold
        if untold:
            self.untold = Cost(before.calls + untold, before.tokens + untold * largest.tokens,
                               None if largest.dollars is None or before.dollars is None
                               else before.dollars + untold * largest.dollars)
        return untold

    def _bills(self) -> Iterator[tuple[Caller, Usage]]:
        """In the order in which they were written: sums of fractions depend on it."""
        for reply in sorted((*self.replies.values(), *self._unused), key=lambda reply: reply.line):
            if reply.caller is not None:
                yield reply.caller, reply.usage
        for sent in sorted(self.refused, key=lambda sent: sent.line):
            yield sent.caller, Usage(failed_calls=1)
        for sent in sorted(self.possibly_paid, key=lambda sent: sent.line):
            yield sent.caller, lost(sent.bound)

    def _reply(self, row: ReplyRow, line: int) -> None:
        found = Recorded(row.said, row.seconds, row.dollars, row.caller, line)
        known = self.replies.get(row.reply)
        if not row.texts:  # it was paid for, and answers nothing
            self._unused.append(found)
        elif self._first(("reply", row.reply), line, known is not None):
            self.replies[row.reply] = found
            if known is not None:
                self._unused.append(known)
        else:
            self._unused.append(found)
        if not row.here:
            self._answered(row.reply, row.caller)
        reply = found.reply
        self._bounded(Cost(1, reply.prompt_tokens + reply.completion_tokens, found.dollars))

    def _sent(self, sent: Sent) -> None:
        self._bounded(sent.bound)
        if self._early[sent.key, sent.caller] > 0:
            self._early[sent.key, sent.caller] -= 1
        else:
            self.unanswered.setdefault(sent.key, []).append(sent)

    def _fail(self, row: FailedRow, line: int) -> None:
        sent = self._answered(row.failed, row.caller)
        if row.caller is not None and row.bound is not None:
            sent = Sent(row.failed, row.caller, Cost(1, *row.bound), line)
            self._bounded(sent.bound)
        if sent is not None:
            (self.failed if row.maybe_paid else self.refused).append(sent)

    def _answered(self, key: str, caller: Caller | None) -> Sent | None:
        """The request that was answered, where its line was read; that of an old journal may be anybody's."""
        rows = self.unanswered.get(key, [])
        sent = next((sent for sent in rows if caller is None or sent.caller == caller), None)
        if sent is not None:
            rows.remove(sent)
            if not rows:
                del self.unanswered[key]
        elif caller is not None:
            self._early[key, caller] += 1
        return sent

    def _result(self, row: ResultRow, line: int) -> None:
        result = row.outcome
        trial = result.seed, result.task
        name = "result", f"{result.seed} {result.task}"
        if line >= self._lines.get(name, 0):
            self._lines[name] = line
            self.results[trial], self.budgets[trial] = result, row.budget

    def _first(self, name: tuple[str, str], line: int, known: bool) -> bool:
        """Whether nothing is known of `name`, or what is known comes later in the same journal."""
        if known and line >= self._lines.get(name, 0):
            return False
        self._lines[name] = line
        return True

    def _bounded(self, cost: Cost) -> None:
        """Note what the largest request may cost."""
        known = self._largest
        known.tokens = max(known.tokens, cost.tokens)
        known.dollars = None if known.dollars is None or cost.dollars is None else max(known.dollars, cost.dollars)
