"""What lies on a disk: the identity of weights and of adapters."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from stl_programs.errors import AdapterError, ModelError

PROVENANCE = "provenance.json"
"""What an adapter's folder says of its training."""
CHUNK = 2**24
"""Bytes read at once: a shard may be larger than the memory that is free."""


def weights_hash(directory: Path) -> str:
    """SHA-256 over the names and contents of the safetensors files in `directory`.

    Files that have not changed are read once in a process. Raises ModelError where there is none.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{directory} holds no safetensors file")
    return _hash(tuple((file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files))


@lru_cache
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def adapter_hash(directory: Path) -> str:
    """SHA-256 of an adapter's weights and configuration."""
    digest = hashlib.sha256()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        file = directory / name
        if not file.is_file():
            raise AdapterError(f"{directory} is no adapter: {name} is missing")
        digest.update(file.read_bytes())
    return digest.hexdigest()
