"""URLs and what servers say, as they may be shown: without keys, passwords and control characters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, urlsplit

from stl_programs.credentials import SECRET_LENGTH
from stl_programs.secrets import masked

OPENAI = "https://api.openai.com/v1"
REASONING = ("o1", "o3", "o4", "gpt-5")
"""OpenAI's reasoning models, by how their names begin: they refuse a temperature, and their thoughts are tokens."""
LOCAL = ("127.0.0.1", "localhost", "::1")


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
    """The first line of `text`, at most 300 characters, with `hidden` and every other secret masked."""
    text = masked(text)
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        if len(secret) >= SECRET_LENGTH:
            text = text.replace(secret, "***")
    line = next(iter(text.strip().splitlines()), "")
    return "".join(character for character in line if character.isprintable())[:300]


def words(data: bytes) -> str:
    """What a server says is wrong: OpenAI's error message, or the body as it stands."""
    text = data.decode(errors="replace")
    try:
        body = json.loads(text)
        error = body.get("error") or body
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, AttributeError):
        return text


def wait(header: str | None) -> float | None:
    """A Retry-After header, in seconds or as an HTTP date, as seconds from now; None where there is none."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
