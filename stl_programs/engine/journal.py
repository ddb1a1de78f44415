"""The journal of a run: JSON Lines, each written before what it says is used.

    {"format": 5, "fingerprint": {...}, "id": ...}                     first line: what run this is, and which file
    {"sent": KEY, CALLER, "bound": [tokens, dollars]}                  a request leaves for a server
    {"reply": KEY, CALLER, "texts": [...], "tokens": [prompt, cached, completion], "seconds": s, "dollars": d}
    {"failed": KEY, CALLER, "why": ..., "maybe_paid": bool, "bound": [tokens, dollars]}
    {"step": KEY, "transition": {...}}                                 of an environment that is not pure
    {"result": {...}}                                                  a finished task

CALLER is "seed", "task", "role" and "model": who pays. Dollars are null where the price is unknown. A reply has
also "logprobs" (per draw [[token, log-probability], ...]), "finish_reasons" and "thoughts", where the model gave them,
and "here" where it is of a model in this process. Every line ends with its place and its checksum (see `lines`).
Written plainly: it survives kill -9, and loses at most the last lines to a power cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stl_programs.engine.budget import Cost
from stl_programs.engine.lines import LINE_BYTES, Draft, checksum
from stl_programs.engine.reading import ELSEWHERE, FORMAT, HEADER_BYTES, READABLE, Ending, header_in, sealed
from stl_programs.engine.recording import Recorded, Recording
from stl_programs.engine.rows import Caller, Damaged
from stl_programs.errors import JournalError
from stl_programs.records import TaskResult
from stl_programs.secrets import cleaned, masked

BEGINNING = f'{{"format":{FORMAT},'.encode()
_HEX = re.compile(rb"[0-9a-f]{0,8}")


class Unwritable(JournalError):
    """A row that is no JSON: its writer's fault, and nothing was written of it. The journal stands."""


class Journal:
    """A run's own journal: continues `path`, or starts it. A line cut short by a kill is dropped.

    Raises JournalError, and leaves the file as it is, where it is not a journal of this run.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any]):
        self.path, self.recording = path, Recording()
        self.unwritten = self.open = 0
        """Replies that were paid for and did not fit; requests under way."""
        self._lock, self._broken = threading.Lock(), ""
        self._identity, self._line, self._sent = secrets.token_hex(4), 0, 0
        if path.exists() and not path.is_file():
            raise JournalError(f"cannot write the journal {path}: it is no file; choose another file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise JournalError(f"cannot write the journal {path}: {error.strerror}") from error
        try:
            self._begin(json.dumps(cleaned(json.loads(json.dumps(fingerprint))), sort_keys=True))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise JournalError(f"cannot write the journal {path}: {error.strerror}") from error
            raise

    def _begin(self, fingerprint: str) -> None:
        """Read what the file holds; only then drop a line cut short, or write the first line of a new one."""
        _lock(self._file, self.path)
        with self.path.open("rb") as file:
            raw = file.readline(HEADER_BYTES)
            if not raw or _begun(raw, fingerprint):
                ending = None
            else:
                self._identity = self._own(raw, json.loads(fingerprint))
                ending = sealed(self.path, file, self._identity, self.recording)
        if ending is None:
            self._file.truncate(0)
            self._put(_first_line(fingerprint, self._identity))
        else:
            self._go_on(ending)

    def _go_on(self, ending: Ending) -> None:
        self._line, self._sent = ending.line, ending.sent
        if self.path.stat().st_size != ending.good:
            self._file.truncate(ending.good)
        if ending.cut:
            self._put(b"\n")

    def _own(self, raw: bytes, fingerprint: Any) -> str:
        """The identity that a first line names. Raises JournalError where it is not that of a journal of this run."""
        try:
            header = header_in(raw)
        except Damaged as why:
            raise JournalError(f"{self.path}: line 1 {why}: it is no journal, or one of which the first line is "
                               f"damaged; it is left as it is: {ELSEWHERE}") from None
        if header.format != FORMAT or header.id is None:
            known = ELSEWHERE if header.format in READABLE else "choose another file or directory"
            raise JournalError(f"{self.path}: a journal of format {header.format}; this version continues format "
                               f"{FORMAT}: {known}")
        if header.fingerprint != fingerprint:
            raise JournalError(f"{self.path} belongs to another run: {_told_apart(header.fingerprint, fingerprint)}; "
                               f"{ELSEWHERE}")
        return header.id

    def sent(self, key: str, caller: Caller, bound: Cost) -> None:
        self._write({"sent": key, **caller._asdict(), "bound": [bound.tokens, bound.dollars]})
        self.open += 1

    def reply(self, key: str, paid: Recorded, here: bool = False) -> None:
        """`here`: of a model in this process, to which nothing was sent."""
        reply, caller = paid.reply, paid.caller
        self.open -= not here
        try:
            self._write({"reply": key, **(caller._asdict() if caller else {}), "texts": reply.texts,
                         "tokens": [reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens],
                         "seconds": paid.seconds, "dollars": paid.dollars, **({"here": True} if here else {}),
                         **({"bounds": True} if reply.bounds else {}), **{
                             name: found for name in ("logprobs", "finish_reasons", "thoughts")
                             if (found := getattr(reply, name)) is not None}})
        except JournalError:
            self.unwritten += 1
            raise

    def failed(self, key: str, why: str, maybe_paid: bool, caller: Caller, bound: Cost) -> None:
        self.open -= 1
        self._write({"failed": key, **caller._asdict(), "why": why, "maybe_paid": maybe_paid,
                     "bound": [bound.tokens, bound.dollars]})

    def step(self, key: str, transition: dict[str, Any], *, at_once: bool = False) -> None:
        """`at_once`: it is on the disk before this returns."""
        self._write({"step": key, "transition": transition})
        if at_once:
            os.fsync(self._file.fileno())

    def result(self, result: TaskResult, budget: dict[str, float] | None = None) -> None:
        """With the budget that the task had."""
        self._write({"result": vars(result), "budget": budget})

    def told(self, error: JournalError) -> JournalError:
        """`error`, and where the journal could not be written, what was paid for that is not in it."""
        if str(error) != self._broken:
            return error
        return JournalError(f"{error}; replies that were paid for and are not in it: {self.unwritten}; requests that "
                            f"were under way: {self.open}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, row: dict[str, Any]) -> None:
        """In pieces where it holds a tree: a large one, in one piece, would hold up all other threads."""
        try:
            text = self._text(row)
            if masked(text) != text:
                text = self._text(cleaned(row))
        except (TypeError, ValueError, RecursionError) as error:
            raise Unwritable(f"this cannot be journaled: {error}: {str(row)[:200]}") from None
        self._append(text, "sent" in row)

    @staticmethod
    def _text(row: dict[str, Any]) -> str:
        large = "result" in row and row["result"]["tree"] is not None
        return "".join(_pieces(row)) if large else json.dumps(row, separators=(",", ":"))

    def _append(self, text: str, sent: bool) -> None:
        """One write for one line, whichever thread it comes from. Nothing follows a line that did not fit."""
        draft = Draft(text)
        if len(draft) > LINE_BYTES:
            raise JournalError(f"a line of {len(draft):,} bytes for the journal {self.path}, and {LINE_BYTES:,} is the "
                               "most that is read again; run with keep_trees=False, or smaller searches")
        with self._lock:
            if self._broken:
                raise JournalError(self._broken)
            self._put(draft.sealed(self._identity, self._line + 1, self._sent + sent))
            self._line, self._sent = self._line + 1, self._sent + sent

    def _put(self, line: bytes) -> None:
        """Write it whole, or cut off what was written of it."""
        try:
            written = self._file.write(line)
            if written == len(line):
                return
            self._broken = f"only {written} of {len(line)} bytes fitted"
            os.ftruncate(self._file.fileno(), self._file.tell() - (written or 0))
        except OSError as error:
            self._broken = self._broken or str(error.strerror)
        self._broken = (f"cannot write the journal {self.path}: {self._broken}; free some space and run again: what "
                        "was finished is kept")
        raise JournalError(self._broken)


def _first_line(fingerprint: str, identity: str) -> bytes:
    text = f'{_opening(fingerprint)}{identity}"'.encode()
    return text + f',"sum":"{checksum(text)}"}}\n'.encode()


def _opening(fingerprint: str) -> str:
    return f'{{"format":{FORMAT},"fingerprint":{fingerprint},"id":"'


def _begun(raw: bytes, fingerprint: str) -> bool:
    """Whether a file holds nothing but a part of this run's first line: a kill or a full disk came in between."""
    opening = _opening(fingerprint).encode()
    identity = raw[len(opening):][:8]
    if raw.endswith(b"\n") or not raw.startswith(BEGINNING) or not _HEX.fullmatch(identity):
        return False
    return _first_line(fingerprint, identity.decode().ljust(8, "0")).startswith(raw)


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
