"""What the simulated models of the benchmarks say: functions of prompt and draw."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any


def world_reply(messages: list[dict[str, Any]], model: str, seed: int) -> str:
    """Names the moves 0 to 4 of a tree world, or judges a state by a hash of it and of the draw."""
    prompt = messages[-1]["content"]
    if any("[[ ## actions ## ]]" in message["content"] for message in messages):
        return f"[[ ## actions ## ]]\n{json.dumps([str(move) for move in range(5)])}\n\n[[ ## completed ## ]]"
    found = re.findall(r"world \d+: [\d.]+|world \d+: root|value (?:world )?\S+", prompt)
    score = int.from_bytes(hashlib.blake2b(f"{found[-1]}/{seed}".encode(), digest_size=2).digest(), "big") / 65535
    if "[[ ## score ## ]]" in "".join(message["content"] for message in messages):
        return f"[[ ## rationale ## ]]\nit looks so\n\n[[ ## score ## ]]\n{score:.2f} / 1.00\n\n[[ ## completed ## ]]"
    return f"it looks so | {score:.2f} / 1.00"
