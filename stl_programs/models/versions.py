"""Names of adapters: BASE@VERSION. Only a name that is registered is one; any other `@` belongs to a model's name."""

from __future__ import annotations

import re

from stl_programs.errors import AdapterError

VERSION = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
"""What follows the last @ of an adapter's name; it names a folder beside a saved program."""
NAME = re.compile(rf"[^\x00-\x1f\x7f]{{1,1024}}@{VERSION.pattern}")
_registered: set[str] = set()


def version_of(name: str) -> str:
    """`embedded/game24@value-v1` -> `value-v1`. Raises AdapterError for what cannot be an adapter's name."""
    base, _, version = name.rpartition("@")
    if not base:
        raise AdapterError(f"{name[:200]!r} has no version; name an adapter BASE@VERSION")
    if not VERSION.fullmatch(version):
        raise AdapterError(f"{name[:200]!r}: the version {version[:140]!r} is not of 1 to 128 letters, digits, dots, "
                           "dashes and underscores, the first of them no dot; name an adapter BASE@VERSION")
    return version


def is_adapter(name: str | None) -> bool:
    """Whether `name` is that of a registered adapter."""
    return name in _registered


def base_name(name: str) -> str:
    """`embedded/game24@value-v1` -> `embedded/game24`, where that adapter is registered; else the name itself."""
    return base_of(name) if name in _registered else name


def base_of(adapter: str) -> str:
    """The base of what is known to be an adapter's name, registered or not."""
    return adapter.rpartition("@")[0]


def note(name: str) -> None:
    """From now on `name` is an adapter's."""
    version_of(name)
    _registered.add(name)


def forget(name: str) -> None:
    """From now on `name` is no adapter's."""
    _registered.discard(name)


def registered_adapters() -> list[str]:
    """The names of the adapters that are registered."""
    return sorted(_registered)
