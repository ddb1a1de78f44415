"""Prices of one's own, over LiteLLM's table: a small JSON file that the environment variable STL_PRICES names.

    {"hosted_vllm/llama-8b": {"prompt": 0.05, "completion": 0.08, "cached_prompt": 0.01, "open": true},
     "training_per_hour": 2.5}

Dollars per million tokens, and per hour of training. A name stands with its provider, or without, to hold for every
provider; an adapter costs what its base does. `open` overrides what the name says (see `is_open`). STL_PRICES=paper
takes the prices of the paper's Table 7, which ship with the package.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from stl_programs.errors import ModelError
from stl_programs.models.base import Prices

PAPER = Path(__file__).parent / "paper_prices.json"
SERVING_YOUR_WEIGHTS = frozenset({
    "embedded", "local", "hosted_vllm", "vllm", "ollama", "ollama_chat", "huggingface", "llamafile", "lm_studio",
    "xinference", "docker_model_runner"})
"""Providers that serve weights which you have to bring."""
PUBLISHED = ("llama", "codellama", "gemma", "gpt-oss", "mixtral", "olmo")
"""Families of which every model's weights are published, whoever serves them."""


@dataclass(frozen=True)
class _File:
    """A price file: by name, what tokens cost and whether the weights are open; dollars per hour of training."""

    prices: dict[str, Prices]
    open: dict[str, bool]
    training_per_hour: float | None


def own_price(name: str) -> Prices | None:
    """The price of a model by its string in the user's file; None where it names none. Raises ModelError."""
    return _find(_chosen().prices, name)


def is_open(name: str) -> bool:
    """Whether anybody can run the model of this string: its weights are open.

    What the price file says; else true for providers that serve weights which you bring (`embedded/`, `local/`,
    `hosted_vllm/`, `ollama/`, ...) and for names of families whose weights are all published (`llama...`, `gemma...`,
    `gpt-oss...`, `mixtral...`, `olmo...`). Every other model counts as closed, `openai/`, `anthropic/` and `gemini/`
    among them: a host's name does not say what it serves.
    """
    if (said := _find(_chosen().open, name)) is not None:
        return said
    provider, _, rest = name.lower().partition("/")
    model = rest.partition("@")[0].rpartition("/")[2]
    words = [model, *model.split(".")]  # bedrock/meta.llama3-8b-instruct-v1:0
    return provider in SERVING_YOUR_WEIGHTS or any(
        word.removeprefix("meta-").startswith(PUBLISHED) for word in words)


def training_price() -> float | None:
    """Dollars for an hour of training, from the user's file; None where it does not say. Raises ModelError."""
    return _chosen().training_per_hour


def _chosen() -> _File:
    chosen = os.environ.get("STL_PRICES")
    return _read(PAPER if chosen == "paper" else Path(chosen)) if chosen else _NONE


_NONE = _File({}, {}, None)


def _find(table: dict[str, Any], name: str) -> Any:
    for found in (name, name.rpartition("@")[0]):  # of a model whose own name has an "@", and of an adapter
        for known in (found, found.rpartition("/")[2].lower()):
            if (row := table.get(known)) is not None:
                return row
    return None


@lru_cache
def _read(path: Path) -> _File:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        hourly = rows.pop("training_per_hour", None)
        return _File({name: _prices(row) for name, row in rows.items() if set(row) != {"open"}},
                     {name: _flag(row["open"]) for name, row in rows.items() if "open" in row},
                     None if hourly is None else _price(hourly))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"STL_PRICES={path}: not a price file ({type(error).__name__}: {error}); write "
                         '{"provider/model": {"prompt": 2.5, "completion": 10}}, dollars per million tokens, and '
                         '"training_per_hour": 2.5 where training costs something') from None


def _prices(row: dict[str, Any]) -> Prices:
    prompt, completion = _price(row["prompt"]), _price(row["completion"])
    return Prices(prompt / 1e6, _price(row.get("cached_prompt", row["prompt"])) / 1e6, completion / 1e6)


def _price(value: Any) -> float:
    price = float(value)
    if not (math.isfinite(price) and price >= 0):
        raise ValueError(f"{value!r} is no price: a finite number, 0 or above")
    return price


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"\"open\": {value!r} is neither true nor false")
    return value
