"""What every model offers to the modules, and where prices are kept apart from tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dspy

Messages = list[dict[str, Any]]
"""A chat: dicts with "role" and "content"."""


@dataclass(frozen=True)
class Completions:
    """The draws of one request; a text is None where the provider returned nothing for that draw."""

    texts: list[str | None]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    dollars: float | None
    """None where the price is unknown; 0.0 for a model in this process."""


class Model(Protocol):
    """One named model: where completions come from, and the prompt format it was made for."""

    name: str
    prompt_format: dspy.Adapter

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None) -> Completions:
        """One draw per seed, by the base or by one of its loaded adapters.

        Raises OutOfRange for a prompt it cannot read, ModelError when it cannot answer.
        """
        ...

    def check(self) -> None:
        """Raises ModelError, before any work, when a key is missing or the server does not answer."""
        ...

    def weights(self) -> Path | None:
        """The directory of the base weights where they are on this disk, else None: such a model cannot be tuned."""
        ...

    def load_adapter(self, name: str, path: Path) -> None:
        """Serve the LoRA adapter at `path` under the new, versioned `name`."""
        ...
