"""What a fake model reads and writes: the inputs of a prompt by name, and a reply of named fields."""

from __future__ import annotations

import json
import re

CHAT = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ## |\n\nRespond with|\Z)", re.S)


def inputs(messages) -> dict[str, str]:
    """The inputs of the last question."""
    return {name: text.strip() for name, text in CHAT.findall(messages[-1]["content"])}


def wants(messages, output: str) -> bool:
    """Whether the signature asks for a field of that name."""
    return any(f"[[ ## {output} ## ]]" in message["content"] for message in messages)


def chat(**fields) -> str:
    """A reply in the chat format."""
    said = (f"[[ ## {name} ## ]]\n{text if isinstance(text, str) else json.dumps(text)}"
            for name, text in fields.items())
    return "\n\n".join((*said, "[[ ## completed ## ]]"))


def lookahead(messages, **fields) -> str:
    """A judgement; where the signature looks ahead, with the step that it would take."""
    ahead = {"best_action": "none", "next_state": "none"} if wants(messages, "best_action") else {}
    return chat(**ahead, **fields)
