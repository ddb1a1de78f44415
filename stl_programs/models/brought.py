"""What a model directory brings beside its weights: its `stl_programs.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stl_programs.errors import ModelError

BROUGHT = "stl_programs.json"
KEYS = {"prompt_format": str, "training": dict}
"""What the file may hold: the format that the model is asked in, and the settings that it is tuned with."""


def brought(directory: Path) -> dict[str, Any]:
    """What `directory` brings, by the names of KEYS; {} where it has no such file.

    Raises ModelError for a file that is not a JSON object of these keys.
    """
    file = directory / BROUGHT
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is no JSON ({error}); mend it, or take it away") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds a {type(found).__name__}; write an object with {' and '.join(KEYS)}")
    for key, value in found.items():
        if key not in KEYS:
            raise ModelError(f"{file}: {key!r} is unknown; write {' or '.join(KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise ModelError(f"{file}: {key} is {value!r}; write {'a name' if KEYS[key] is str else 'an object'}")
    return found
