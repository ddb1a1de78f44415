"""What of a connection may be written to a file: nothing that is named like a credential, at any depth."""

from __future__ import annotations

import re
from typing import Any

from stl_programs.models.served.urls import address, is_base_url

ALWAYS = re.compile(r"secret|passw|passphrase|pwd|credential|auth(?!or(?!i[sz]))|header|cookie|bearer|api_?key|"
                    r"access_?key|private_?key|\bpin\b|jwt|signature|session_?id", re.IGNORECASE)
"""Names of credentials, whatever they hold."""
WORDS = re.compile(r"key|token(?!i[sz])", re.IGNORECASE)
"""Names that are of credentials where they hold text: `max_tokens` is a number."""


def is_credential(name: str, value: Any) -> bool:
    """Whether what is called `name` may be a key, a password or the like."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name)
    return bool(ALWAYS.search(plain)) or bool(WORDS.search(plain) and not _of_numbers(value))


def public(found: Any) -> Any:
    """`found` without credentials at any depth, and with URLs without user and query."""
    if isinstance(found, dict):
        return {name: public(value) for name, value in found.items() if not is_credential(str(name), value)}
    if isinstance(found, (list, tuple)):
        return [public(value) for value in found]
    return _clean(found) if isinstance(found, str) and "://" in found else found


def _clean(text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    return ",".join(address(part) for part in parts) if all(map(is_base_url, parts)) else re.sub(
        r"(?<=://)[^/@\s]*@", "", text)


def _of_numbers(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(one, (bool, int, float)) for one in value)
    if isinstance(value, dict):  # what is inside is looked at by its own names
        return True
    return value is None or isinstance(value, (bool, int, float))
