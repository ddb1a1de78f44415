"""Where keys and passwords stand: the names of variables, options, fields and headers, and the parts of URLs."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

SECRET_LENGTH = 6
"""Shorter ones, like "none", are placeholders and words of ordinary messages."""
DIGITS = 8
"""The same of what is a number."""
PLACEHOLDERS = frozenset({"api-key", "apikey", "changeme", "default", "disabled", "dummy-key", "enabled", "example",
                          "no-key", "not-needed", "notneeded", "optional", "password", "placeholder", "required",
                          "secret", "test-key", "your-api-key"})
"""What stands in a key's place and is none."""
LONGEST_LINE = 16
"""Of a secret of several lines, each of so many characters or more is one."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENDINGS = ("key", "token", "secret", "password", "passwd", "passphrase", "credential", "credentials", "auth", "cookie")
_WHOLE = frozenset({"keys", "tokens", "secrets", "passwords", "cookies", "pass", "pwd", "pat", "authorization",
                    "authentication", "bearer", "jwt", "sessionid", "sig"})
_FIRST = frozenset({"max", "min", "num", "stop", "n", "bos", "eos", "pad", "unk", "sep", "cls", "mask"})
_LAST = frozenset({"file", "path", "dir", "mode", "type", "name", "url", "uri", "limit", "sock", "enabled", "count",
                   "size", "version", "ids", "budget"})
"""First and last words of names of something about tokens, or about a secret."""
_QUERIES = ("extra_query", "default_query")
_PAIR = re.compile(r"([\w.-]+)\s*[=:]\s*\"?([^;,&\s\"']+(?: [^;,&\s\"']+)?)")
_SCHEME = re.compile(r"(?:bearer|basic|token|digest|apikey|negotiate)\s+(\S+)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a variable, option, field or header of that name holds a secret.

    Example:
        >>> is_secret_name("OPENAI_API_KEY"), is_secret_name("x-api-key"), is_secret_name("max_tokens")
        (True, True, False)
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or name == "PWD" or words[-1] in _LAST or (words[0] in _FIRST and len(words) > 1) or "cache" in words:
        return False
    return any(word.endswith(_ENDINGS) or word in _WHOLE for word in words)


def of_variable(name: str, value: str) -> Iterator[str]:
    """What is secret in a variable of the environment: by its name, in URLs, and in lists of pairs."""
    if is_secret_name(name) and not (os.path.isabs(value) and os.path.exists(value)):
        yield from of_header(value)
    elif "://" in value:
        for one in {value, *value.split(",")}:
            yield from of_url(one.strip())
    if re.search(r"CONN|DSN|URL|URI|HEADERS", name, re.IGNORECASE):
        yield from of_pairs(_PAIR.findall(value.partition("?")[2] if "://" in value else value), strictly=True)


def of_fields(fields: Mapping[Any, Any]) -> Iterator[str]:
    """What stands under the name of a secret, at any depth; of URLs, what is secret in them."""
    for name, value in fields.items():
        if name in _QUERIES and isinstance(value, Mapping):
            yield from of_pairs((str(key), str(one)) for key, one in value.items())
        elif is_secret_name(str(name)):
            for text in texts(value):
                yield from of_header(text)
        elif isinstance(value, Mapping):
            yield from of_fields(value)
        elif isinstance(value, (list, tuple)):
            yield from of_fields(dict(enumerate(value)))
        elif isinstance(value, str) and "://" in value:
            for one in {value, *value.split(",")}:
                yield from of_url(one.strip())


def of_url(url: str) -> Iterator[str]:
    """The password of a URL, or its user where there is none, and what its query says."""
    try:
        split = urlsplit(url)
        user, _, rest = split.netloc.rpartition("@")
        if not user and ":" in rest and not rest.rpartition(":")[2].rstrip("]").isdecimal() and "@" in url:
            user = url.partition("://")[2].rpartition("@")[0]  # a password with a mark that ends hosts
    except ValueError:
        return
    if user:
        name, colon, password = user.partition(":")
        yield from {password, unquote(password)} if colon else {name, unquote(name)}
        if len(password) >= SECRET_LENGTH:
            yield from {user, f"{unquote(name)}:{unquote(password)}"}
    raw = (pair.partition("=")[::2] for pair in split.query.split("&"))
    yield from of_pairs([*raw, *parse_qsl(split.query)])


def of_pairs(pairs: Iterable[tuple[str, str]], strictly: bool = False) -> Iterator[str]:
    """Of names with values (a query's, cookies'): under a secret's name, and else what is no word and no version."""
    for name, value in pairs:
        if is_secret_name(name):
            yield from of_header(unquote_plus(value))
            yield value
        elif not strictly and not value.isalpha() and not value.isdecimal() and "version" not in name.lower():
            yield value


def of_header(text: str) -> Iterator[str]:
    """A credential as it stands, and without the word in front of it; what basic authorization packs; cookies."""
    yield text
    text = text.strip()
    if (found := _SCHEME.fullmatch(text)) is not None:
        yield found[1]
        with contextlib.suppress(ValueError):
            opened = base64.b64decode(found[1], validate=True).decode()
            yield from (opened, opened.partition(":")[2]) if ":" in opened else ()
    elif text.startswith("{"):
        with contextlib.suppress(ValueError):
            yield from of_fields(json.loads(text))
    elif "=" in text.rstrip("=") and not text.startswith("http"):
        yield from of_pairs((name.strip(), value) for name, _, value in
                             (pair.partition("=") for pair in text.split(";")))
    if "://" in text:
        yield from of_url(text)
    elif ":" in text and not (password := text.partition(":")[2]).isalpha():
        yield password


def hidden_parts(secret: str) -> Iterator[str]:
    """What of a secret is masked: nothing where it is a placeholder, or as short as numbers are."""
    short = len(secret) < (DIGITS if secret.isdecimal() else SECRET_LENGTH)
    if not short and secret.lower() not in PLACEHOLDERS and len(set(secret)) > 2:
        yield secret
        lines = secret.splitlines()
        yield from (line for line in lines if len(lines) > 1 and len(line) >= LONGEST_LINE)


def texts(value: Any) -> Iterator[str]:
    """The texts at any depth of a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, (Mapping, list, tuple)):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from texts(one)
    elif hasattr(value, "get_secret_value"):
        yield from texts(value.get_secret_value())
