"""A program as a JSON file, with its adapters in a folder beside it. Never pickle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from stl_programs.errors import AdapterError, StlError
from stl_programs.models.adapters import AdapterRecord
from stl_programs.models.registry import export_adapter
from stl_programs.outside import check_plain, parsed, read_json, shown, write_atomically
from stl_programs.saving import Saved
from stl_programs.secrets import as_json

PROGRAM_BYTES = 2**26
"""Most bytes of a program."""
OWN = frozenset({"demos", "train", "traces"})
"""What of a saved predictor is data, and no part."""


def write_program(program: Saved, path: str | Path) -> None:
    """Write `program` to `path`, whole or not at all; its adapters are copied into a folder beside it and named from
    there.

    Raises StlError for anything but a .json file, and where it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise StlError(f"{path}: a program is saved as JSON; name a file that ends with .json")
    state = program.dump_state()
    for predictor in _tuned(state):
        predictor["adapter"] = export_adapter(predictor["adapter"], path.parent / f"{path.stem}-adapters")
    try:
        text = as_json(state, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise StlError(f"the program cannot be saved as JSON: {error}; look at its demonstrations and settings"
                       ) from None
    write_atomically(path, [text.encode(), b"\n"], "the program")


def load_program(program: Saved, path: str | Path, allow_unsafe_lm_state: bool = False) -> None:
    """Make `program` what the file says. Raises StlError for a file that holds no such program."""
    path = Path(path)
    state = read_json(path, PROGRAM_BYTES, "a saved program")
    if not isinstance(state, dict):
        raise StlError(f"{path} is no saved program: it holds a {type(state).__name__}; give the file that save wrote")
    try:
        for predictor in _tuned(state):
            predictor["adapter"]["path"] = str(_inside(path.parent, predictor["adapter"]))
        program.load_state(state, allow_unsafe_lm_state=allow_unsafe_lm_state)
    except StlError as error:
        raise type(error)(f"{path}: {error}") from None


def _inside(folder: Path, adapter: Any) -> Path:
    """The folder of a saved predictor's adapter. Raises AdapterError for one that is not inside the program's own."""
    relative = parsed(AdapterRecord, adapter, "the program's adapter", AdapterError).path
    if Path(relative).is_absolute() or PureWindowsPath(relative).drive or ".." in PureWindowsPath(relative).parts:
        raise AdapterError(f"the program's adapter lies at {shown(relative)}, and a program names folders beside "
                           "itself; put the adapter there, and its path from there")
    found = folder / relative
    check_plain(found, folder, "the program's adapter", AdapterError)
    for one in found.iterdir() if found.is_dir() else ():
        check_plain(one, folder, "the program's adapter", AdapterError)
    return found.resolve()


def _tuned(state: Any) -> Iterator[dict[str, Any]]:
    """The predictors of a saved program that carry an adapter."""
    if isinstance(state, dict):
        if isinstance(state.get("adapter"), dict) and "signature" in state:
            yield state
            return
        for name, inner in state.items():
            if name not in OWN:
                yield from _tuned(inner)
    elif isinstance(state, list):
        for inner in state:
            yield from _tuned(inner)
