"""How a file is damaged: bytes flipped, ends cut, values of its JSON swapped, links put in places."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 10**6, 10**9, -(10**18), 10**300, 0.5, -0.0, 1e308, "", "x", "many", "1", "NaN",
    "../x",
    "../../outside/secret", "/etc/passwd", "a\x00b", "line\nline", "\ud800", "é" * 300, "x" * 100_000, "embedded/../x",
    "embedded/game24@../../escaped", "@", [], {}, [1], ["x"], [[]], {"a": 1}, {"kind": "Value"},
    {"function": "os.system"}, {"labels": []}, {"labels": [["a", "b"]]}, {"labels": "ab"}, {"low": 2, "high": 1},
    {"budget": {"calls": "many"}}, {"budget": [1]}, {"number": "nan"}, {"of": {}}, {"of": 1}, {"door": "openai/x"},
    {"dspy": "Predict", "state": {}},
    {"kind": "BeamSearch", "settings": {}, "parts": {}}, {"kind": "Uniform", "settings": {}, "parts": {}},
    {"kind": "LegalMoves", "settings": {}, "parts": {}}, {"kind": "PerDepth", "settings": {}, "parts": {"values": []}})
"""What takes the place of a value."""
RAW = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 100_000, '{"a":' * 300 + "1" + "}" * 300,
       "[" * 70 + "]" * 70, "", "'x'", "0x10", "\\u0000", '"\\ud800"', '"unended')
"""What takes the place of a value without being one."""
HOLE = "@@HOLE@@"


def spoilt(rng: random.Random, data: bytes) -> bytes:
    """A few bytes flipped, put in, doubled or taken away."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2)) if data else (0, 0)
        match rng.randrange(6):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + rng.randbytes(rng.choice((1, 4, 300))) + data[at:]
            case 3:
                data = data[:end] + data[at:end] + data[end:]
            case _:
                data = data[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at:at + 1]) + data[at + 1:]
    return data


def swapped(rng: random.Random, text: str) -> str:
    """JSON in which one to three values are others, gone, or of other names."""
    found, raw = json.loads(text), rng.choice(RAW) if rng.random() < 0.3 else None
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        within, key = _place(rng, found)
        if within is None:
            break
        match rng.randrange(8):
            case 0:
                del within[key]
            case 1 if isinstance(within, dict):
                within[rng.choice(("x", "__class__", "environment", "predict", "settings", "_x", ""))] = copy.deepcopy(
                    within[key])
            case 2 if isinstance(within, dict):
                _, other = _place(rng, found)
                within[str(other)] = within.pop(key)
            case 3:
                other, name = _place(rng, found)
                within[key] = json.loads(json.dumps(other[name])) if other else None
            case _:
                within[key] = HOLE if raw is not None else copy.deepcopy(rng.choice(VALUES))
    return json.dumps(found).replace(f'"{HOLE}"', raw if raw is not None else "null")


def _place(rng: random.Random, found: Any) -> tuple[Any, Any]:
    """A random value, by what holds it and its key there: a path of random length, then one of its ends."""
    within, key = None, None
    while isinstance(found, (dict, list)) and found and (within is None or rng.random() < 0.85):
        within, key = found, rng.choice(list(found) if isinstance(found, dict) else range(len(found)))
        found = within[key]
    return within, key


def linked(rng: random.Random, path: Path, outside: Path) -> None:
    """A link in the place of `path` or of its folder, to the same outside; or something that is no file."""
    match rng.randrange(5):
        case 0:
            path.unlink()
            path.symlink_to(outside / path.name)
        case 1:
            shutil.rmtree(path.parent)
            path.parent.symlink_to(outside)
        case 2:
            path.unlink()
            path.mkdir()
        case 3:
            path.unlink()
            os.mkfifo(path)
        case _:
            path.unlink()
