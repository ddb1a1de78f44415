"""The embedded shop, and the benchmark's where STL_DATA says it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stl_programs import WebShop


class EveryWord:
    """The stub that the reference's recordings were made with: every word with a letter is a noun."""

    name = "every word"

    def nouns(self, text: str) -> list[str]:
        return [word.lower() for word in text.split() if any(letter.isalpha() for letter in word)]


@pytest.fixture(scope="session")
def shop() -> WebShop:
    return WebShop(tags="rules")


@pytest.fixture(scope="session")
def benchmark(data: Path) -> WebShop:
    """The thousand products with synthetic goals, as the recordings have them."""
    return WebShop(data / "webshop", goals="synthetic", seed=0, tags=EveryWord())


@pytest.fixture(scope="session")
def golden(data: Path):
    return lambda name: json.loads((data / "webshop" / "golden" / f"{name}.json").read_text(encoding="utf-8"))
