"""Lines of a journal as bytes: each says which journal and which place are its own, under a checksum.

    {"reply": ..., "at": [JOURNAL, LINE, SENT], "sum": CHECKSUM}

JOURNAL is the identity of the file, as its first line has it; LINE counts lines and SENT those that say that a request
left, from the first line on: what is missing between two lines is known. CHECKSUM is over all that stands before it.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stl_programs.errors import JournalError

LINE_BYTES = 2**28
"""The longest line that is written or read: a tree of some hundred thousand nodes."""
NEAREST = 3
"""How many beginnings of a line, beside the first, are tried where several stand before a checksum."""
_SEAL = re.compile(rb',"at":\["([0-9a-f]{8})",([0-9]{1,15}),([0-9]{1,15})\],"sum":"([0-9a-f]{16})"\}')
_TAIL = 100
"""Bytes of a seal, at most."""
_START = re.compile(rb'\{"(?:sent|reply|failed|step|result)":')


class Piece(NamedTuple):
    """An undamaged line: what it says as JSON, and its place."""

    text: bytes
    journal: str
    line: int
    sent: int
    sum: bytes
    end: int
    """Where it ends among the bytes that it was found in."""


class Draft:
    """A line that is to be written: its checksum is begun before its place is known."""

    def __init__(self, body: str | bytes):
        self.body = body.encode() if isinstance(body, str) else body
        self._digest = _digest(memoryview(self.body)[:-1])

    def __len__(self) -> int:
        return len(self.body) + _TAIL

    def sealed(self, journal: str, line: int, sent: int) -> bytes:
        """The whole line at its place."""
        place = f',"at":["{journal}",{line},{sent}]'.encode()
        self._digest.update(place)
        return b"".join((memoryview(self.body)[:-1], place, f',"sum":"{self._digest.hexdigest()}"}}\n'.encode()))


def _digest(text: bytes | memoryview) -> hashlib.blake2b:
    return hashlib.blake2b(text, digest_size=8)


def checksum(text: bytes) -> str:
    """Of a line, up to its checksum."""
    return _digest(text).hexdigest()


def physical(file: BinaryIO, path: Path, *, first: int = 1) -> Iterator[bytes]:
    """What stands between newlines, each with its own, from here on; the next one is line `first`.

    Raises JournalError for more than LINE_BYTES.
    """
    number = first - 1
    while raw := file.readline(LINE_BYTES + 1):
        number += 1
        if len(raw) > LINE_BYTES:
            raise JournalError(f"{path}: line {number} is longer than {LINE_BYTES:,} bytes, and is not read; it is "
                               "left as it is: choose another file")
        yield raw


def whole(raw: bytes) -> Piece | None:
    """The undamaged line that `raw` is, without its newline; None where it is none."""
    seal = _SEAL.search(raw, max(0, len(raw) - _TAIL))
    if seal is None or seal.end() != len(raw):
        return None
    return _piece(raw, 0, seal)


def pieces(raw: bytes) -> Iterator[Piece]:
    """The undamaged lines among bytes that are not one: where a newline was lost, or something stands in between."""
    done = 0
    for seal in _SEAL.finditer(raw):
        starts = (start.start() for start in _START.finditer(raw, done, seal.start()))
        for start in (*islice(starts, 1), *deque(starts, maxlen=NEAREST)):
            if (piece := _piece(raw, start, seal)) is not None:
                yield piece
                done = seal.end()
                break


def _piece(raw: bytes, start: int, seal: re.Match[bytes]) -> Piece | None:
    summed = seal.start(4) - len(',"sum":"')
    if _digest(memoryview(raw)[start:summed]).hexdigest().encode() != seal[4]:
        return None
    return Piece(raw[start:seal.end()], seal[1].decode(), int(seal[2]), int(seal[3]), seal[4], seal.end())
