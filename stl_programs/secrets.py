"""What this process must not show: keys and passwords, of its environment and of its models, masked wherever text
leaves it, in whatever way a server or a library may have written them."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from stl_programs.credentials import hidden_parts, is_secret_name, of_fields, of_url, of_variable
from stl_programs.spellings import marks, pattern

MASK = "***"


def know(*found: str | None) -> None:
    """Never show these from now on; None, short ones and placeholders are passed over."""
    new = {part for one in found if one for part in hidden_parts(one.strip())} - _known.found
    if new:
        _known.add(new)


def know_url(url: str) -> None:
    """The user's password in a URL, and what its query says; of several URLs with commas between them, of each."""
    for one in {url, *url.split(",")}:
        know(*of_url(one.strip()))


def know_fields(fields: Mapping[str, Any]) -> None:
    """What stands under the name of a secret, at any depth; of URLs, what is secret in them."""
    know(*of_fields(fields))


def know_options(command: Iterable[str]) -> None:
    """What stands on a command line behind an option that is named like a secret (--api-key KEY, --api-key=KEY)."""
    before = ""
    for part in command:
        name, _, value = part.partition("=")
        for option, found in ((before, part), (name, value)):
            if option.startswith("-") and is_secret_name(option):
                know(found)
        before = part


def masked(text: str) -> str:
    """`text` with every secret that this process knows as `***`, however it is written.

    Example:
        >>> know("sk-0123456789")
        >>> masked("no such key: sk-0123456789")
        'no such key: ***'
    """
    _known.look_around()
    for mark in _known.marks:
        if mark in text:
            return _known.pattern.sub(MASK, text)
    return text


def shown_url(url: str) -> str:
    """`url`, a store's or a server's, as it may be shown."""
    know_url(url)
    return masked(url)


def spans(text: str) -> list[tuple[int, int]]:
    """Where in `text` secrets stand: begin and end of each."""
    _known.look_around()
    return [found.span() for found in _known.pattern.finditer(text)]


def cleaned(value: Any) -> Any:
    """The same at any depth of dicts, lists and tuples; what holds no secret stays the object that it is."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        inner: Any = {cleaned(name): cleaned(one) for name, one in value.items()}
        return value if all(a is b for pair in zip(inner.items(), value.items(), strict=False)
                            for a, b in zip(*pair, strict=True)) and len(inner) == len(value) else inner
    if isinstance(value, (list, tuple)):
        inner = [cleaned(one) for one in value]
        if all(a is b for a, b in zip(inner, value, strict=True)):
            return value
        return inner if isinstance(value, list) else type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    return value


def as_json(value: Any, **options: Any) -> str:
    """`value` as JSON without a secret; `options` as `json.dumps` has them."""
    text = json.dumps(value, **options)
    return text if masked(text) == text else json.dumps(cleaned(value), **options)


def public(value: Any) -> Any:
    """`value` as it may be saved: without the entries that are named like secrets, and masked, at any depth."""
    if isinstance(value, dict):
        return {name: public(one) for name, one in value.items() if not is_secret_name(str(name))}
    return [public(one) for one in value] if isinstance(value, list) else cleaned(value)


class _Known:
    """The secrets so far. They only grow: what a variable held a moment ago may still come back."""

    def __init__(self) -> None:
        self.found: frozenset[str] = frozenset()
        self.marks: tuple[str, ...] = ()
        self.pattern = re.compile("(?!)")
        self._seen: Any = None
        self._lock = threading.Lock()

    def add(self, new: Iterable[str]) -> None:
        with self._lock:
            self.found |= frozenset(new)
            longest = sorted(self.found, key=lambda one: (-len(one), one))
            self.pattern = re.compile("|".join(pattern(one) for one in longest))
            self.marks = tuple(dict.fromkeys(mark for one in longest for mark in marks(one)))

    def look_around(self) -> None:
        """Read the environment where it has changed. Its own table is compared: reading it by names takes long."""
        table = getattr(os.environ, "_data", os.environ)
        if table != self._seen:
            self._seen = dict(table)
            know(*(secret for name, value in os.environ.items() for secret in of_variable(name, value)))


_known = _Known()
if hasattr(os, "register_at_fork"):  # a child gets its lock free
    _adding = _known._lock
    os.register_at_fork(before=_adding.acquire, after_in_parent=_adding.release, after_in_child=_adding.release)
