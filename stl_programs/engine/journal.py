"""The journal of a run: JSON Lines, each written before what it says is used.

    {"format": 2, "fingerprint": {...}}                                first line: what run this is
    {"sent": KEY, "task": ID, "role": ..., "model": ..., "bound": ...}   a request leaves for a server
    {"reply": KEY, "texts": [...], "tokens": [prompt, cached, completion], "seconds": s}
    {"failed": KEY, "why": ..., "maybe_paid": bool}
    {"step": KEY, "transition": {...}}                                 of an environment that is not pure
    {"result": {...}}                                                  a finished task

Written plainly: it survives kill -9, and loses at most the last lines to a power cut.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stl_programs.engine.budget import Cost
from stl_programs.errors import JournalError
from stl_programs.models.base import Completions


@dataclass
class TaskResult:
    """The outcome of one task: an answer, or the reason why there is none. JSON-ready."""

    task: str
    seed: int = 0
    answer: str | None = None
    trajectory: list[str] = field(default_factory=list)
    error: str | None = None
    ended: str | None = None
    """The budget that ended the search before its algorithm did; the answer is the best until then."""
    states_expanded: int = 0
    states_judged: int = 0
    seconds: float = 0.0
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)
    tree: dict[str, Any] | None = None


@dataclass(frozen=True)
class Recorded:
    """A reply that was already paid for."""

    completions: Completions
    seconds: float


class Recording:
    """What journals hold: replies and steps by key, finished tasks, and requests that got no reply."""

    def __init__(self) -> None:
        self.replies: dict[str, Recorded] = {}
        self.steps: dict[str, dict[str, Any]] = {}
        self.results: dict[tuple[int, str], TaskResult] = {}
        self.unanswered: dict[str, list[dict[str, Any]]] = {}
        self.failed: list[dict[str, Any]] = []
        self.refused = 0
        """Requests that failed and were surely not charged for."""

    def read(self, row: dict[str, Any]) -> None:
        if "reply" in row:
            prompt, cached, completion = row["tokens"]
            self.replies[row["reply"]] = Recorded(Completions(row["texts"], prompt, completion, cached), row["seconds"])
            self._answered(row["reply"])
        elif "sent" in row:
            self.unanswered.setdefault(row["sent"], []).append(row)
        elif "failed" in row:
            sent = self._answered(row["failed"])
            if row["maybe_paid"] and sent:
                self.failed.append(sent)
            else:
                self.refused += 1
        elif "step" in row:
            self.steps[row["step"]] = row["transition"]
        elif "result" in row:
            result = TaskResult(**row["result"])
            self.results[result.seed, result.task] = result

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
    return recording


class Journal:
    """A run's own journal: continues `path`, or starts it. A line cut short by a kill is dropped."""

    def __init__(self, path: Path, fingerprint: dict[str, Any]):
        self.path, self.recording = path, Recording()
        header = {"format": 2, "fingerprint": json.loads(json.dumps(fingerprint, sort_keys=True))}
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
            if not good and row != header:
                raise JournalError(f"{self.path} belongs to another run: its settings are {row.get('fingerprint')}, "
                                   f"these are {header['fingerprint']}; choose another directory or delete it")
            if good:
                self.recording.read(row)
            good = end
        os.truncate(self.path, good)
        if not good:
            self._write(header)

    def _write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise JournalError(f"cannot write the journal {self.path}: {error.strerror}; free some space and run "
                               "again: what was finished is kept") from error
        if written != len(line):
            raise JournalError(f"cannot write the journal {self.path}: only {written} of {len(line)} bytes fitted; "
                               "free some space and run again: what was finished is kept")

    def sent(self, key: str, task: str, role: str, model: str, bound: Cost) -> None:
        self._write({"sent": key, "task": task, "role": role, "model": model, "bound": [bound.tokens, bound.dollars]})

    def reply(self, key: str, completions: Completions, seconds: float) -> None:
        self._write({"reply": key, "texts": completions.texts, "seconds": round(seconds, 4), "tokens": [
            completions.prompt_tokens, completions.cached_tokens, completions.completion_tokens]})

    def failed(self, key: str, why: str, maybe_paid: bool) -> None:
        self._write({"failed": key, "why": why, "maybe_paid": maybe_paid})

    def step(self, key: str, transition: dict[str, Any]) -> None:
        self._write({"step": key, "transition": transition})

    def result(self, result: TaskResult) -> None:
        self._write({"result": vars(result)})

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


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
