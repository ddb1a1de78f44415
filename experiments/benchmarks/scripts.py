"""What the simulated models of the benchmarks say: functions of prompt and draw."""

from __future__ import annotations

import hashlib
import json
import random
import re
from typing import Any

MOVES, NAMED = 32, 5
"""Successors of a state of the wide tree worlds, and how many of them a reply names."""


def world_reply(messages: list[dict[str, Any]], model: str, seed: int) -> str:
    """Names moves of a tree world, or judges a state by a hash of it and of the draw.

    Asked in dspy's chat format it names the moves 0 to 4; in the compact one, 5 of the moves 0 to 31, at random.
    """
    prompt = messages[-1]["content"]
    if any("[[ ## actions ## ]]" in message["content"] for message in messages):
        return f"[[ ## actions ## ]]\n{json.dumps([str(move) for move in range(NAMED)])}\n\n[[ ## completed ## ]]"
    if prompt.startswith("moves "):
        return " ; ".join(map(str, random.Random(f"{prompt}/{seed}").sample(range(MOVES), NAMED)))
    found = re.findall(r"world \d+: [\d.]+|world \d+: root|value (?:world )?\S+", prompt)
    score = int.from_bytes(hashlib.blake2b(f"{found[-1]}/{seed}".encode(), digest_size=2).digest(), "big") / 65535
    if "[[ ## score ## ]]" in "".join(message["content"] for message in messages):
        return f"[[ ## rationale ## ]]\nit looks so\n\n[[ ## score ## ]]\n{score:.2f} / 1.00\n\n[[ ## completed ## ]]"
    return f"it looks so | {score:.2f} / 1.00"
