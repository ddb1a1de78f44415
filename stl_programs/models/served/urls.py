"""URLs and what servers say, as they may be shown: without keys, passwords and control characters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from stl_programs.credentials import SECRET_LENGTH
from stl_programs.secrets import masked

OPENAI = "https://api.openai.com/v1"
REASONING = ("o1", "o3", "o4", "gpt-5")
"""OpenAI's reasoning models, by how their names begin: they refuse a temperature, and their thoughts are tokens."""
LOCAL = ("127.0.0.1", "localhost", "::1")
SAID = ("error", "message", "detail", "msg", "error_message", "title")
"""Where servers put what is wrong, the outermost first."""
LONGEST_WORDS = 20_000
"""Characters of an error that are looked at."""
LONGEST_WAIT = 3600.0
"""Seconds that a server is believed when it asks to wait."""
_TAGS = re.compile(r"<(?:style|script)\b[^<]*</(?:style|script)>|<[^<>]*>", re.IGNORECASE)


def address(url: str) -> str:
    """`url` without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def is_base_url(url: str) -> bool:
    """Whether a server could be there."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def under(url: str, path: str) -> str:
    """The URL of `path` below `url`, whose query stays."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{path}").geturl()


def secrets(url: str) -> list[str | None]:
    """What in a URL may be a secret: its password and the values of its query."""
    parts = urlsplit(url)
    return [parts.password, *(value for _, value in parse_qsl(parts.query))]


def without_secrets(text: str, hidden: Iterable[str | None]) -> str:
    """`text` in one line of at most 300 characters, with `hidden` and every other secret masked."""
    text = masked(text)
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        if len(secret) >= SECRET_LENGTH:
            text = text.replace(secret, "***")
    line = " ".join(text[:LONGEST_WORDS].split())
    return "".join(character for character in line if character.isprintable())[:300]


def words(found: Any, depth: int = 4) -> str:
    """What a server says is wrong, in one line: OpenAI's error message, FastAPI's details, a page's text, or as it
    stands. `found` is a body, or what was parsed of one."""
    if isinstance(found, bytes):
        text = found[:LONGEST_WORDS].decode(errors="replace")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = _TAGS.sub(" ", text) if "<" in text[:100] else text
    if isinstance(found, dict) and depth:
        inner = next((found[name] for name in SAID if found.get(name)), None)
        where = found.get("loc")
        place = f"{where[-1]}: " if isinstance(where, list) and where else ""
        return place + (words(inner, depth - 1) if inner is not None else str(found)[:LONGEST_WORDS])
    if isinstance(found, list) and depth:
        return "; ".join(words(one, depth - 1) for one in found[:3])
    return " ".join(str(found)[:LONGEST_WORDS].split())


def wait(header: str | None) -> float | None:
    """A Retry-After header, in seconds or as an HTTP date, as seconds from now; None where there is none."""
    if not header or not header.isascii():
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
            seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError, TypeError):
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), LONGEST_WAIT)
