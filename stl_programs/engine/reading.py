"""Reading a journal, whatever lies on the disk: what is whole is used, what is damaged is named, nothing is written."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stl_programs.engine.lines import Piece, checksum, physical, pieces, whole
from stl_programs.engine.recording import DamagedLine, Recording
from stl_programs.engine.rows import LARGEST, Damaged, Header, SentRow, header_of, parsed, row_of
from stl_programs.errors import JournalError

FORMAT = 5
READABLE = (2, 3, 4, 5)
"""Formats whose replies can be replayed; only FORMAT is continued. 2 does not say who paid; 2 and 3 hold plain text,
and not why a draw ended; before 5 there was no checksum."""
HEADER_BYTES = 2**26
"""The longest first line that is read."""
NAMED = 5
"""Of damaged lines, how many a warning names."""
ELSEWHERE = "choose another file or directory, or pass it as recorded=[...] to use its replies"
_UNPAID = (b'{"reply":', b'{"failed":', b'{"step":', b'{"result":')
"""How lines begin that say nothing of a request that leaves."""


class DamagedLines(UserWarning):
    """Some of a journal's lines cannot be used: what they held is done again, and its cost is bounded."""


class Ending(NamedTuple):
    """Where a journal goes on."""

    good: int
    """The byte after the last line that stays."""
    cut: bool
    """Whether that line lacks its newline."""
    line: int
    sent: int
    """The highest numbers that its lines may have had."""


def header_in(raw: bytes) -> Header:
    """What a first line says. Raises Damaged where it is none, and where its checksum is wrong."""
    if not raw.endswith(b"\n"):
        raise Damaged("is not whole")
    found = parsed(raw)
    if found.get("format") is None:
        raise Damaged("names no format")
    if isinstance(found["format"], int) and FORMAT < found["format"] <= LARGEST:
        return Header(format=found["format"])
    header = header_of(found)
    if header.format == FORMAT and (header.id is None or not raw.endswith(_sum_of(raw))):
        raise Damaged("does not fit its checksum")
    return header


def _sum_of(raw: bytes) -> bytes:
    text, _, _ = raw.rpartition(b',"sum":"')
    return b',"sum":"' + checksum(text).encode() + b'"}\n'


def read_journal(path: Path, into: Recording | None = None) -> Recording:
    """A journal as a recording, without writing to it. Lines that are damaged are left out, and named by a warning.

    Raises JournalError where it cannot be read, or is none.
    """
    recording = into or Recording()
    if not path.is_file():
        raise JournalError(f"{path}: no such journal")
    try:
        with path.open("rb") as file:
            _read(path, file, recording)
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error.strerror}") from error
    return recording


def _read(path: Path, file: BinaryIO, recording: Recording) -> None:
    raw = file.readline(HEADER_BYTES)
    if not raw.endswith(b"\n") and (not raw or raw.startswith(b'{"format":')):
        return  # it was begun, and no more
    try:
        header = header_in(raw)
    except Damaged as why:
        identity = _most_named(path)
        if identity is None:
            raise JournalError(f"{path}: line 1 {why}: it is no journal, or one of which the first line is damaged"
                               ) from None
        file.seek(0)
        sealed(path, file, identity, recording, first=1)
        return
    if header.format not in READABLE:
        raise JournalError(f"{path}: a journal of format {header.format}; this version reads formats {READABLE}")
    if header.format == FORMAT:
        sealed(path, file, header.id or "", recording)
    else:
        _unsealed(path, file, recording)


def _most_named(path: Path) -> str | None:
    """The journal that most lines of a file say to be of; None where there is none."""
    with path.open("rb") as file:
        found = Counter(piece.journal for raw in physical(file, path) for piece in pieces(raw))
    return found.most_common(1)[0][0] if found else None


def _unsealed(path: Path, file: BinaryIO, recording: Recording) -> None:
    """The lines of an old format, which have no checksum."""
    known = len(recording.damaged)
    for number, raw in enumerate(physical(file, path, first=2), 2):
        if raw.endswith(b"\n"):
            try:
                recording.take(row_of(parsed(raw, once=True)), number)
            except Damaged as why:
                recording.damaged.append(DamagedLine(str(path), number, str(why)))
    recording.close(0, 0)
    _warn(path, recording.damaged[known:], 0, 0, 0)


def sealed(path: Path, file: BinaryIO, identity: str, recording: Recording, *, first: int = 2) -> Ending:
    """The lines behind the first one of a journal: those of `identity` are taken, each once; the others are named."""
    reader, known = _Reader(str(path), identity, recording), len(recording.damaged)
    good, cut = file.tell(), False
    for number, raw in enumerate(physical(file, path, first=first), first):
        end = reader.read(number, raw)
        if raw.endswith(b"\n"):
            good += len(raw)
        elif end:
            good, cut = good + end, True
    missing = reader.top - len(reader.seen)
    untold = recording.close(reader.top_sent - reader.sent + reader.trailing_sent, missing)
    _warn(path, recording.damaged[known:], missing, untold, recording.untold.tokens)
    return Ending(good, cut, reader.top + reader.trailing, reader.top_sent + reader.trailing_sent)


class _Reader:
    """Takes the lines of one journal, and counts those that it does not see."""

    def __init__(self, path: str, identity: str, recording: Recording):
        self.path, self.identity, self.recording = path, identity, recording
        self.seen: dict[int, bytes] = {}
        self.top = self.top_sent = self.sent = 0
        self.trailing = self.trailing_sent = 0
        """Damaged lines behind the last one that was taken; of these, such as may say that a request left."""

    def read(self, number: int, raw: bytes) -> int:
        """One line of the file; returns where its last undamaged part ends."""
        complete = raw.endswith(b"\n")
        text = raw[:-1] if complete else raw
        piece = whole(text)
        end = 0
        whys = [] if piece is not None or not complete else [_why(text)]
        for part in pieces(text) if piece is None else (piece,):
            why = self._take(part)
            if why is None:
                end = part.end
            else:
                whys.append(why)
        if whys:
            self.recording.damaged.append(DamagedLine(self.path, number, whys[0]))
            if end < len(text):
                self.trailing += 1
                self.trailing_sent += bool(end) or not text.startswith(_UNPAID)
        return end

    def _take(self, piece: Piece) -> str | None:
        """Use an undamaged line, unless it was seen before. Why it cannot be used, where it cannot."""
        if piece.journal != self.identity:
            return "is of another journal"
        if self.seen.get(piece.line) == piece.sum:
            return None
        try:
            found = parsed(piece.text)
            row = row_of({name: found[name] for name in found if name not in ("at", "sum")})
        except Damaged as why:
            return str(why)
        self.sent += isinstance(row, SentRow) and piece.line not in self.seen
        self.seen.setdefault(piece.line, piece.sum)
        if piece.line > self.top:
            self.top, self.trailing, self.trailing_sent = piece.line, 0, 0
        self.top_sent = max(self.top_sent, piece.sent)
        self.recording.take(row, piece.line)
        return None


def _why(text: bytes) -> str:
    try:
        parsed(text)
    except Damaged as why:
        return str(why)
    return "does not fit its checksum"


def _warn(path: Path, damaged: list[DamagedLine], missing: int, untold: int, tokens: int) -> None:
    said = list(_said(damaged, missing, untold, tokens))
    if said:
        warnings.warn(f"{path}: {'; '.join(said)}; what they held is done again where it is needed", DamagedLines,
                      stacklevel=3)


def _said(damaged: list[DamagedLine], missing: int, untold: int, tokens: int) -> Iterator[str]:
    if damaged:
        named = ", ".join(f"line {one.number} {one.why}" for one in damaged[:NAMED])
        more = f", and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
        yield f"{len(damaged)} damaged lines are not used ({named}{more})"
    if missing:
        yield f"{missing} lines that were written cannot be read or are gone"
    if untold:
        yield (f"{untold} requests may have left without an answer that no line names; budgets count them as the "
               f"largest one, {tokens:,} tokens in all")
