"""What a user says of a connection, by any of its usual names: where it goes, what it carries, what it leaves out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stl_programs.errors import ModelError
from stl_programs.models.served.urls import is_base_url

SAME = {"base_url": "api_base", "api_base_url": "api_base", "endpoint": "api_base", "request_timeout": "timeout",
        "extra_headers": "headers", "default_headers": "headers", "default_query": "extra_query",
        "drop_fields": "additional_drop_params"}
"""Other names of an option."""
LIMITS = ("max_completion_tokens", "max_tokens")
"""What the bound of a draw is called, the newer name first."""
OURS = frozenset({"messages", "model", "n", "stream", "stream_options"})
"""Fields of a request that are not the user's to set."""
TIMEOUT_SECONDS = 600.0
LONGEST_TIMEOUT = 86_400.0


@dataclass(frozen=True)
class Connection:
    """Options, sorted. `body` and `extra_body`: further fields of every request. `limit`: the name of the bound of a
    draw, where the user chose one. `left_out`: fields that the server does not take."""

    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = TIMEOUT_SECONDS
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    query: dict[str, str] = field(default_factory=dict, repr=False)
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    extra_body: dict[str, Any] = field(default_factory=dict, repr=False)
    left_out: frozenset[str] = frozenset()
    limit: str | None = None


def connection(name: str, options: Mapping[str, Any]) -> Connection:
    """The options of the model `name`. Raises ModelError, which names it, for one that cannot be sent."""
    given: dict[str, Any] = {}
    for option, value in options.items():
        known = SAME.get(option, option)
        if value is None:
            continue
        if known in given and given[known] != value:
            raise ModelError(f"{name}: {option}= and {known}= say two things; leave one out")
        given[known] = value
    body = {key: value for key, value in given.items() if key not in _NOT_BODY}
    extra = _object(name, given, "extra_body")
    limit = next((one for one in LIMITS for of in (body, extra) if of.pop(one, None) is not None), None)
    if taken := sorted(OURS & {*body, *extra}):
        raise ModelError(f"{name}: {' and '.join(taken)} of a request cannot be set: draws are samples= of the "
                         "predictor, and replies come whole")
    return Connection(_base(name, given.get("api_base")), _key(name, given.get("api_key")),
                      _timeout(name, given.get("timeout")), _headers(name, given),
                      {key: str(value) for key, value in _object(name, given, "extra_query").items()}, body, extra,
                      _names(name, given.get("additional_drop_params")), limit)


_NOT_BODY = frozenset({"api_base", "api_key", "timeout", "headers", "extra_query", "extra_body", "organization",
                       "project", "additional_drop_params", "drop_params", "custom_llm_provider"})


def _base(name: str, found: Any) -> str | None:
    urls = found if isinstance(found, (list, tuple)) else str(found).split(",") if found is not None else []
    single = [str(url).strip() for url in urls if str(url).strip()]
    if found is not None and not (single and all(map(is_base_url, single))):
        raise ModelError(f"{name}: a base URL is not one; write http://HOST:PORT/v1, several with commas between them")
    return ",".join(single) or None


def _key(name: str, found: Any) -> str | None:
    if found is not None and (not isinstance(found, str) or not found.isprintable()):
        raise ModelError(f"{name}: api_key is no line of text; look for a line end in it")
    return found.strip() if found else found


def _timeout(name: str, found: Any) -> float:
    if found is None:
        return TIMEOUT_SECONDS
    seconds = float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise ModelError(f"{name}: timeout={found!r}: seconds, above 0 and at most {LONGEST_TIMEOUT:g}")
    return seconds


def _headers(name: str, given: Mapping[str, Any]) -> dict[str, str]:
    headers = {str(key): str(value) for key, value in _object(name, given, "headers").items()}
    for option, header in (("organization", "OpenAI-Organization"), ("project", "OpenAI-Project")):
        if option in given:
            headers[header] = str(given[option])
    for key, value in headers.items():
        if not (key.isascii() and key.isprintable() and value.isprintable()) or set(key) & set(" :"):
            raise ModelError(f"{name}: the header {key!r} is not one line of text")
    return headers


def _object(name: str, given: Mapping[str, Any], option: str) -> dict[str, Any]:
    found = given.get(option, {})
    if not isinstance(found, Mapping):
        raise ModelError(f"{name}: {option} is a {type(found).__name__}; give a dict")
    return dict(found)


def _names(name: str, found: Any) -> frozenset[str]:
    names = [found] if isinstance(found, str) else found or []
    if not all(isinstance(one, str) for one in names):
        raise ModelError(f"{name}: additional_drop_params={found!r}: give names of fields, like ['seed']")
    return frozenset(names)


def check_json(name: str, fields: Mapping[str, Any]) -> None:
    """Raises ModelError for a field that no JSON can carry."""
    for key, value in fields.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelError(f"{name}: {key} is a {type(value).__name__} that no request can carry ({error}); leave it "
                             "out") from None
