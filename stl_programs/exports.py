"""Names that grow with a room's files: the public classes of a new file are exported without being listed anywhere."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Any


def newcomers(room: str) -> dict[str, str]:
    """The public classes of those files of a package that it has not imported yet, each with its module.

    A file is parsed, and imported when one of its names is first asked for.

    Example:
        >>> newcomers("stl_programs.search")  # beside its own files, after adding my_search.py
        {'MySearch': 'stl_programs.search.my_search'}
    """
    folder = Path(str(sys.modules[room].__file__)).parent
    waiting = {path: f"{room}.{path.stem}" for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}
    return {node.name: module for path, module in waiting.items() if module not in sys.modules
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}


def found(room: str, names: dict[str, str], name: str) -> Any:
    """A newcomer of `room` by its name. Raises AttributeError for a name that no file has."""
    if name not in names:
        raise AttributeError(f"module {room!r} has no attribute {name!r}")
    return getattr(importlib.import_module(names[name]), name)
