"""What a model directory brings beside its weights: its `stl_programs.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from stl_programs.errors import ModelError
from stl_programs.outside import CONFIG_BYTES, Strict, parsed, read_json

BROUGHT = "stl_programs.json"


class Brought(Strict):
    """What the file may hold: the format that the model is asked in, and the settings that it is tuned with."""

    prompt_format: Annotated[str, StringConstraints(max_length=200)] = ""
    training: dict[str, Any] = Field(default_factory=dict)


def brought(directory: Path) -> dict[str, Any]:
    """What `directory` brings, by the names of Brought's fields; {} where it has no such file.

    Raises ModelError for a file that is not a JSON object of these.
    """
    file = directory / BROUGHT
    if not file.is_file():
        return {}
    found = read_json(file, CONFIG_BYTES, f"an object with {' and '.join(Brought.model_fields)}", ModelError)
    return parsed(Brought, found, str(file), ModelError).model_dump(exclude_unset=True)
