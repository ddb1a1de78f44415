"""Identities: of weights and adapters on a disk, and of a model among others of its name; the files of an adapter."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from stl_programs.errors import AdapterError, ModelError
from stl_programs.outside import CONFIG_BYTES, chunks_of

SECRETS = re.compile("key|token|secret|password|credential|auth|header|cookie", re.IGNORECASE)
"""How fields are named whose values are not written down."""
PROVENANCE = "provenance.json"
"""What an adapter's folder says of its training."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
README = "README.md"
WEIGHT_BYTES = 2**35
"""Most bytes of an adapter's weights."""
LIMITS = {CONFIG: CONFIG_BYTES, WEIGHTS: WEIGHT_BYTES, PROVENANCE: 16 * CONFIG_BYTES, README: CONFIG_BYTES}
"""The files of an adapter, and most bytes of each."""
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


def model_identity(model: Any) -> dict[str, Any]:
    """What changes a model's answers beside its name, without secrets: its server's address and the further fields of
    its requests, or the hash of its weights where it runs in this process. JSON."""
    base = getattr(model, "base", model)
    weights = base.weights() if base.endpoint is None else None
    found = {"server": base.endpoint, "extra": model_extra(base) or None, "weights": weights and weights_hash(weights)}
    return {name: said for name, said in found.items() if said is not None}


def model_extra(model: Any) -> dict[str, Any]:
    """The further fields of a model's requests, without secrets."""
    base = getattr(model, "base", model)
    fields: dict[str, Any] = public(getattr(base, "extra", None) or getattr(getattr(base, "lm", None), "kwargs", None)
                                    or {})
    return fields


def public(value: Any) -> Any:
    """`value` as JSON, without what is named like a secret and is no number."""
    if isinstance(value, dict):
        return {str(name): public(inner) for name, inner in value.items()
                if inner is not None and (isinstance(inner, (int, float)) or not SECRETS.search(str(name)))}
    if isinstance(value, (list, tuple)):
        return [public(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else type(value).__name__


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
    """SHA-256 of an adapter's weights and configuration. Raises AdapterError for a folder without them, or with links
    in their places."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        file = directory / name
        if file.is_symlink():
            raise AdapterError(f"{file} is a symbolic link, and none is followed; put the file itself there")
        if not file.is_file():
            raise AdapterError(f"{directory} is no adapter: {name} is missing; copy the whole folder that the training "
                               "wrote")
        for chunk in chunks_of(file, LIMITS[name], "a file of an adapter", AdapterError):
            digest.update(chunk)
    return digest.hexdigest()
