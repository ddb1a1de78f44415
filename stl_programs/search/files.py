"""A program as a JSON file, with its adapters in a folder beside it. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stl_programs.errors import StlError
from stl_programs.models.registry import export_adapter
from stl_programs.saving import Saved
from stl_programs.secrets import as_json


def write_program(program: Saved, path: str | Path) -> None:
    """Write `program` to `path`; its adapters are copied into a folder beside it and named from there.

    Raises StlError for anything but a .json file.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise StlError(f"{path}: a program is saved as JSON; name a file that ends with .json")
    state = program.dump_state()
    for predictor in _tuned(state):
        predictor["adapter"] = export_adapter(predictor["adapter"], path.parent / f"{path.stem}-adapters")
    try:
        text = as_json(state, indent=1)
    except (TypeError, ValueError) as error:
        raise StlError(f"the program cannot be saved as JSON: {error}; look at its demonstrations and settings"
                       ) from None
    path.write_text(text + "\n", encoding="utf-8")


def load_program(program: Saved, path: str | Path, allow_unsafe_lm_state: bool = False) -> None:
    """Make `program` what the file says. Raises StlError for a file that holds no such program."""
    path = Path(path)
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StlError(f"cannot read the program {path}: {error.strerror}") from error
    except ValueError as error:
        raise StlError(f"{path} is no saved program: {error}") from None
    if not isinstance(state, dict):
        raise StlError(f"{path} is no saved program: it holds a {type(state).__name__}")
    for predictor in _tuned(state):
        predictor["adapter"]["path"] = str((path.parent / predictor["adapter"]["path"]).resolve())
    try:
        program.load_state(state, allow_unsafe_lm_state=allow_unsafe_lm_state)
    except StlError as error:
        raise type(error)(f"{path}: {error}") from None


def _tuned(state: Any) -> Iterator[dict[str, Any]]:
    """The predictors of a saved program that carry an adapter."""
    if isinstance(state, dict):
        if isinstance(state.get("adapter"), dict):
            yield state
        for inner in state.values():
            yield from _tuned(inner)
    elif isinstance(state, list):
        for inner in state:
            yield from _tuned(inner)
