"""A fake that answers field by field: the inputs of a prompt in, the outputs of its signature out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from stl_programs.errors import ModelError
from stl_programs.models.base import Messages
from stl_programs.testing.scripted import Says

Answer = Callable[[dict[str, str], int], Mapping[str, Any]]
"""(inputs of the signature by name, seed of the draw) -> its outputs by name."""
INPUT = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ## |\n\nRespond with|\Z)", re.S)


def answering(answer: Answer) -> Says:
    """The script of a `ScriptedModel` that is asked in the chat format, as models are by default.

    Args:
        answer: given the inputs as texts and the seed, says the outputs; more than a signature has are passed over, so
            that one function may play a policy and a value.

    Raises ModelError, when it is asked, for a prompt of another format.

    Example:
        >>> model = ScriptedModel("scripted/fair", answering(lambda inputs, seed: {"rationale": "Fair.", "score": "5"}))
        >>> Value(env.value_signature, model)
    """

    def says(messages: Messages, seed: int) -> str:
        fields = answer(inputs_of(messages), seed)
        said = (f"[[ ## {name} ## ]]\n{text if isinstance(text, str) else json.dumps(text)}"
                for name, text in fields.items())
        return "\n\n".join((*said, "[[ ## completed ## ]]"))

    return says


def inputs_of(messages: Messages) -> dict[str, str]:
    """The inputs of the last question. Raises ModelError where it is not asked in the chat format."""
    found = {name: text.strip() for name, text in INPUT.findall(messages[-1]["content"])}
    if not found:
        raise ModelError(f"a script by fields reads the format 'chat', and was asked {messages[-1]['content'][:60]!r}; "
                         "leave format= out, or script the messages themselves")
    return found
