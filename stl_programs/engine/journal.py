"""The journal of a run: JSON Lines, each written before what it says is used.

    {"format": 4, "fingerprint": {...}}                                first line: what run this is
    {"sent": KEY, CALLER, "bound": [tokens, dollars]}                  a request leaves for a server
    {"reply": KEY, CALLER, "texts": [...], "tokens": [prompt, cached, completion], "seconds": s, "dollars": d}
    {"failed": KEY, "why": ..., "maybe_paid": bool}
    {"step": KEY, "transition": {...}}                                 of an environment that is not pure
    {"result": {...}}                                                  a finished task

CALLER is "seed", "task", "role" and "model": who pays. Dollars are null where the price is unknown. A reply has
also "logprobs" (per draw [[token, log-probability], ...]), "finish_reasons" and "thoughts", where the model gave them.
Written plainly: it survives kill -9, and loses at most the last lines to a power cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stl_programs.engine.budget import Cost
from stl_programs.errors import JournalError
from stl_programs.models.base import Reply
from stl_programs.records import TaskResult, Usage
from stl_programs.secrets import as_json, cleaned, masked

FORMAT = 4
READABLE = (2, 3, 4)
"""Formats whose replies can be replayed; only FORMAT is continued. 2 does not say who paid; 2 and 3 hold plain text,
and not why a draw ended."""


class Caller(NamedTuple):
    """Who makes a call, and so who pays for it: a module's role and its model, in one trial of one task."""

    seed: int
    task: str
    role: str
    model: str


@dataclass(frozen=True)
class Recorded:
    """A reply that was already paid for, and by whom (None: an old journal does not say)."""

    reply: Reply
    seconds: float
    dollars: float | None = None
    caller: Caller | None = None

    @property
    def usage(self) -> Usage:
        reply = self.reply
        return Usage(calls=1, samples=len(reply.texts), prompt_tokens=reply.prompt_tokens,
                     cached_tokens=reply.cached_tokens, completion_tokens=reply.completion_tokens,
                     seconds=self.seconds, dollars=self.dollars)


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
    """What journals hold: replies and steps by key, finished tasks, and requests that got no reply."""

    def __init__(self) -> None:
        self.replies = Replies()
        self.steps: dict[str, dict[str, Any]] = {}
        self.results: dict[tuple[int, str], TaskResult] = {}
        self.budgets: dict[tuple[int, str], dict[str, float] | None] = {}
        """Of each of these tasks, which may have ended its search."""
        self.unanswered: dict[str, list[dict[str, Any]]] = {}
        self.failed: list[dict[str, Any]] = []
        """Requests that failed and may have been charged for, as they were sent."""
        self.refused: list[dict[str, Any]] = []
        """Those that failed and were surely not charged for."""

    def read(self, row: dict[str, Any]) -> None:
        if "reply" in row:
            self.replies[row["reply"]] = Recorded(_reply(row), row["seconds"], row.get("dollars"),
                                                  _caller(row) if "task" in row else None)
            self._answered(row["reply"])
        elif "sent" in row:
            self.unanswered.setdefault(row["sent"], []).append(row)
        elif "failed" in row:
            if (sent := self._answered(row["failed"])) is not None:
                (self.failed if row["maybe_paid"] else self.refused).append(sent)
        elif "step" in row:
            self.steps[row["step"]] = row["transition"]
        elif "result" in row:
            result = TaskResult(**row["result"])
            self.results[result.seed, result.task] = result
            self.budgets[result.seed, result.task] = row.get("budget")

    def spent(self) -> dict[tuple[int, str], dict[tuple[str, str], Usage]]:
        """What every trial (seed, task) has cost so far, by role and model: replies, and requests that brought none."""
        bills: dict[tuple[int, str], dict[tuple[str, str], Usage]] = {}

        def book(caller: Caller, usage: Usage) -> None:
            trial = bills.setdefault((caller.seed, caller.task), {})
            trial.setdefault((caller.role, caller.model), Usage()).add(usage)

        for reply in self.replies.values():
            if reply.caller is not None:
                book(reply.caller, reply.usage)
        for sent in self.refused:
            book(_caller(sent), Usage(failed_calls=1))
        for sent in self.possibly_paid:
            tokens, dollars = sent["bound"]
            book(_caller(sent), lost(Cost(1, tokens, dollars)))
        return bills

    def forget(self, seed: int, task: str) -> list[str]:
        """Drop the replies that one trial paid for; returns their keys."""
        keys = self.replies.paid_by(seed, task)
        for key in keys:
            self.replies.pop(key, None)
        return keys

    def _answered(self, key: str) -> dict[str, Any] | None:
        rows = self.unanswered.get(key)
        row = rows.pop(0) if rows else None
        if rows == []:
            del self.unanswered[key]
        return row

    @property
    def possibly_paid(self) -> list[dict[str, Any]]:
        """Requests whose reply was never seen: the provider may have charged for them."""
        return [*self.failed, *(row for rows in self.unanswered.values() for row in rows)]


def read_journal(path: Path, into: Recording | None = None) -> Recording:
    """A journal as a recording, without writing to it. Raises JournalError where it cannot be read."""
    recording = into or Recording()
    if not path.is_file():
        raise JournalError(f"{path}: no such journal")
    for number, (row, _) in enumerate(_lines(path)):
        if number:
            recording.read(row)
        elif row.get("format") not in READABLE:
            raise JournalError(f"{path}: {_format(row)}; this version reads formats {READABLE}")
    return recording


def _format(header: dict[str, Any]) -> str:
    found = header.get("format")
    return "no journal: its first line names no format" if found is None else f"a journal of format {found}"


def _reply(row: dict[str, Any]) -> Reply:
    prompt, cached, completion = row["tokens"]
    logprobs = row.get("logprobs")
    return Reply(row["texts"], prompt, completion, cached, finish_reasons=row.get("finish_reasons"),
                 thoughts=row.get("thoughts"), logprobs=logprobs and [
                     [(token, logprob) for token, logprob in draw] for draw in logprobs])


def _caller(row: dict[str, Any]) -> Caller:
    return Caller(row.get("seed", 0), row["task"], row["role"], row["model"])


class Journal:
    """A run's own journal: continues `path`, or starts it. A line cut short by a kill is dropped."""

    def __init__(self, path: Path, fingerprint: dict[str, Any]):
        self.path, self.recording = path, Recording()
        self._lock, self._broken = threading.Lock(), ""
        header = {"format": FORMAT, "fingerprint": cleaned(json.loads(json.dumps(fingerprint, sort_keys=True)))}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._begin(header)
        except OSError as error:
            raise JournalError(f"cannot write the journal {path}: {error.strerror}") from error
        except JournalError:
            self.close()
            raise

    def _begin(self, header: dict[str, Any]) -> None:
        """Read what the file holds, drop a line cut short, and write the header of a new one."""
        _lock(self._file, self.path)
        good = 0
        for row, end in _lines(self.path):
            if not good and row.get("format") != FORMAT:
                raise JournalError(f"{self.path}: {_format(row)}; this version continues format {FORMAT}: choose "
                                   "another directory, or pass it as recorded=[...] to replay its replies")
            if not good and row != header:
                raise JournalError(f"{self.path} belongs to another run: "
                                   f"{_told_apart(row.get('fingerprint'), header['fingerprint'])}; choose another "
                                   "file, or delete it")
            if good:
                self.recording.read(row)
            good = end
        os.truncate(self.path, good)
        if not good:
            self._write(header)

    def _write(self, row: dict[str, Any]) -> None:
        self._append(as_json(row, separators=(",", ":")).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        """One write for one line, whichever thread it comes from. Nothing follows a line that did not fit."""
        with self._lock:
            if self._broken:
                raise JournalError(self._broken)
            try:
                written = self._file.write(line)
                if written != len(line):
                    self._broken = f"only {written} of {len(line)} bytes fitted"
            except OSError as error:
                self._broken = str(error.strerror)
            if self._broken:
                self._broken = (f"cannot write the journal {self.path}: {self._broken}; free some space and run again: "
                                "what was finished is kept")
                raise JournalError(self._broken)

    def sent(self, key: str, caller: Caller, bound: Cost) -> None:
        self._write({"sent": key, **caller._asdict(), "bound": [bound.tokens, bound.dollars]})

    def reply(self, key: str, paid: Recorded) -> None:
        reply, caller = paid.reply, paid.caller
        self._write({"reply": key, **(caller._asdict() if caller else {}), "texts": reply.texts,
                     "tokens": [reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens],
                     "seconds": round(paid.seconds, 4), "dollars": paid.dollars, **{
                         name: found for name in ("logprobs", "finish_reasons", "thoughts")
                         if (found := getattr(reply, name)) is not None}})

    def failed(self, key: str, why: str, maybe_paid: bool) -> None:
        self._write({"failed": key, "why": why, "maybe_paid": maybe_paid})

    def step(self, key: str, transition: dict[str, Any]) -> None:
        self._write({"step": key, "transition": transition})

    def result(self, result: TaskResult, budget: dict[str, float] | None = None) -> None:
        """With the budget that the task had. Written in pieces where it holds a tree: a large one, in one piece, would
        hold up all other threads."""
        row = {"result": vars(result), "budget": budget}
        if result.tree is None:
            self._write(row)
        else:
            text = "".join(_pieces(row))
            self._append((text if masked(text) == text else "".join(_pieces(cleaned(row)))).encode() + b"\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


DIFFERENCES, CHARACTERS = 3, 60
"""Of a journal of another run: how many settings are named, and how much of each."""


def _told_apart(old: Any, new: Any) -> str:
    """Where two fingerprints differ, by the names that lead there: "its program.settings.width is 3, here it is 5"."""
    found = list(_differences(old, new, ""))
    shown = [f"its {where or 'settings'} is {_short(was)}, here it is {_short(now)}" for where, was, now in found]
    more = [f"and {len(found) - DIFFERENCES} more"] if len(found) > DIFFERENCES else []
    return "; ".join([*shown[:DIFFERENCES], *more])


def _differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(name), new.get(name), f"{where}.{name}".lstrip("."))
    elif old != new:
        yield where, old, new


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} ..."


def _pieces(value: Any, levels: int = 4) -> Iterator[str]:
    """JSON, as json.dumps writes it; what lies more than `levels` deep (a node of a tree) in one piece each."""
    if not levels or not value or not isinstance(value, (dict, list)):
        yield json.dumps(value, separators=(",", ":"))
    elif isinstance(value, dict):
        for number, (name, inner) in enumerate(value.items()):
            yield f"{',' if number else '{'}{json.dumps(name)}:"
            yield from _pieces(inner, levels - 1)
        yield "}"
    else:
        for number, inner in enumerate(value):
            yield "," if number else "["
            yield from _pieces(inner, levels - 1)
        yield "]"


def _lock(file: Any, path: Path) -> None:
    """One writer a journal; the lock goes with the process. Elsewhere than on POSIX there is none."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError(f"{path} is being written by another process; wait for it, or choose another directory"
                           ) from None


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """The complete lines, each with the byte where it ends."""
    end = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                row = json.loads(raw)
            except ValueError:
                raise JournalError(f"{path}: line {number} is not JSON; delete the file to start again") from None
            end += len(raw)
            yield row, end
