"""A fake player of Game of 24, to be served by the simulator where a language model would have to be downloaded."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from signatures import NO_ACTION
from stl_programs.environments.game24.world import format_numbers, moves, parse_numbers


def game24_script(messages: list[dict[str, Any]], model: str, seed: int) -> str:
    """Plays Game of 24 without a language model: random legal moves, and judgements by one random play-out.

    Answers the stock chat format, and a tuned value in the paper's sentences where it is asked in them.
    """
    prompt = messages[-1]["content"]
    everything = "\n".join(message["content"] for message in messages)
    found = re.findall(r"(?:\[\[ ## state ## \]\]|State:)\s*([-0-9/ ]+)", prompt)
    numbers = parse_numbers(found[-1])
    rng = random.Random(f"{seed}/{found[-1]}")
    if "[[ ## actions ## ]]" in everything:
        options = [text for text, _ in moves(numbers)]
        picked = rng.sample(options, min(8, len(options)))
        return f"[[ ## actions ## ]]\n{json.dumps(picked)}\n\n[[ ## completed ## ]]"
    steps = []
    while len(numbers) > 1 and moves(numbers):
        move, numbers = rng.choice(moves(numbers))
        steps.append((move, format_numbers(numbers)))
    score = "sure" if numbers == parse_numbers("24") else "impossible"
    chain = [f"{move} -> {after}" for move, after in steps]
    if "[[ ## best_action ## ]]" in everything:
        action, after = steps[0] if steps else (NO_ACTION, NO_ACTION)
        return (f"[[ ## best_action ## ]]\n{action}\n\n[[ ## next_state ## ]]\n{after}\n\n[[ ## rationale ## ]]\n"
                f"{' . '.join([*chain[1:], 'end'])}\n\n[[ ## score ## ]]\n{score}\n\n[[ ## completed ## ]]")
    if "[[ ## score ## ]]" in everything:
        return (f"[[ ## rationale ## ]]\n{' . '.join([*chain, 'end'])}\n\n[[ ## score ## ]]\n{score}\n\n"
                "[[ ## completed ## ]]")
    if not steps:
        return f"I will evaluate the terminal state:\nReflection of the Terminal State: end\n" \
               f"Thus the correctness score is {score}."
    return ("I will evaluate the best successor state from the current state:\n"
            f"Best Next Action: {steps[0][0]}\nObservation of Best Successor State: {steps[0][1]}\n"
            f"Reflection of the Best Successor State: {' . '.join([*chain[1:], 'end'])}\n"
            f"Thus the correctness score is {score}.")
