"""Prices of one's own, over LiteLLM's table: a small JSON file that the environment variable STL_PRICES names.

    {"hosted_vllm/llama-8b": {"prompt": 0.05, "completion": 0.08, "cached_prompt": 0.01}}

Dollars per million tokens. A name stands with its provider, or without, to hold for every provider; an adapter costs
what its base does. STL_PRICES=paper takes the prices of the paper's Table 7, which ship with the package.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

from stl_programs.errors import ModelError
from stl_programs.models.base import Prices

PAPER = Path(__file__).parent / "paper_prices.json"


def own_price(name: str) -> Prices | None:
    """The price of a model by its string in the user's file; None where it names none. Raises ModelError."""
    chosen = os.environ.get("STL_PRICES")
    if not chosen:
        return None
    table = _read(PAPER if chosen == "paper" else Path(chosen))
    base = name.partition("@")[0]
    return table.get(base) or table.get(base.rpartition("/")[2].lower())


@lru_cache
def _read(path: Path) -> dict[str, Prices]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {name: _prices(row) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"STL_PRICES={path}: not a price file ({type(error).__name__}: {error}); write "
                         '{"provider/model": {"prompt": 2.5, "completion": 10}}, dollars per million tokens') from None


def _prices(row: dict[str, float]) -> Prices:
    prompt, completion = float(row["prompt"]), float(row["completion"])
    cached = float(row.get("cached_prompt", prompt))
    if min(prompt, completion, cached) < 0:
        raise ValueError(f"{row} holds a price below 0")
    return Prices(prompt / 1e6, cached / 1e6, completion / 1e6)
