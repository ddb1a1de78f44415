"""Adapter folders on disk: their hash, and how a saved program carries and checks one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from stl_programs import models
from stl_programs.errors import AdapterError
from stl_programs.models import PROVENANCE, adapter_hash


def export_adapter(name: str, folder: Path, relative_to: Path) -> dict[str, Any]:
    """Copy the adapter served as `name` into `folder`; what a saved program records of it."""
    source = models.adapter_path(name)
    target = folder / name.partition("@")[2]
    if target.resolve() != source:
        if target.exists() and adapter_hash(target) != adapter_hash(source):
            raise AdapterError(f"{target} holds another adapter; save the program under another name")
        shutil.copytree(source, target, dirs_exist_ok=True)
    provenance = json.loads((target / PROVENANCE).read_text())
    return {"path": str(target.relative_to(relative_to)), "sha256": adapter_hash(target),
            "base_sha256": provenance["base_sha256"]}


def import_adapter(name: str, record: dict[str, Any], folder: Path) -> None:
    """Verify the adapter that a saved program names, and serve it. Raises AdapterError."""
    path = folder / record["path"]
    if not path.is_dir():
        raise AdapterError(f"the program's adapter {path} is gone; put the folder back beside the program")
    if (found := adapter_hash(path)) != record["sha256"]:
        raise AdapterError(f"the adapter {path} was changed: its hash is {found[:12]}, the program "
                           f"names {record['sha256'][:12]}")
    models.register_adapter(name, path)
