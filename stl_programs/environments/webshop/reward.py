"""What a purchase is worth: WebShop's reward, with all of its peculiarities."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from stl_programs.environments.webshop.catalogue import Product
from stl_programs.environments.webshop.goals import Goal
from stl_programs.environments.webshop.lexicon import COLOURS
from stl_programs.environments.webshop.tagger import Tagger

ALIKE = 85
"""Two texts match where their token set ratio is above this, of 100."""
_LATIN_1 = dict.fromkeys(range(128, 256))


class Reward(NamedTuple):
    """The reward of a purchase in [0, 1], and what it is made of."""

    total: float
    type: float
    """0, 0.1, 0.5 or 1: whether it is the kind of thing that was wanted."""
    attributes: int
    options: int
    price: bool


def reward(product: Product, options: Mapping[str, str], price: float, goal: Goal, tagger: Tagger) -> Reward:
    """(attributes + options + price) / (wanted attributes + wanted options + 1) * type.

    Args:
        options: what was chosen, by the name of the option.
        price: of the product, in dollars.
        tagger: finds the nouns of names.
    """
    kind = type_reward(product, goal, tagger)
    attributes = sum(_has(product, wanted) for wanted in goal.attributes)
    chosen = [normal_colour(value) for value in options.values()]
    matched = sum(any(alike(value, wanted) for value in chosen) for wanted in map(normal_colour, goal.options))
    cheap = price <= goal.price_upper
    total = (attributes + matched + cheap) / (len(goal.attributes) + len(goal.options) + 1) * kind
    return Reward(total, kind, attributes, matched, cheap)


def type_reward(product: Product, goal: Goal, tagger: Tagger) -> float:
    """Whether it is the kind of thing that was wanted.

    The share of the goal's nouns that the product's name has counts every noun of the goal as often as it stands
    there, so that a name can share less than all of itself.
    """
    wanted = tagger.nouns(goal.name)
    title = len(set(tagger.nouns(product.title)) & set(wanted)) / len(wanted) if wanted else 0.2
    if title == 0:
        return 0.0
    if title < 0.1:
        return 0.1
    parts = _parts(product.product_category) & _parts(goal.product_category)
    return 1.0 if product.query == goal.query or len(parts) >= 2 or title > 0.2 else 0.5


def _parts(category: str) -> set[str]:
    return {part.strip() for part in category.split("›")}


def _has(product: Product, wanted: str) -> bool:
    """Whether a product has an attribute: in its list, or word for word in what it says."""
    return (any(alike(own, wanted) for own in product.attributes) or wanted in product.title.lower()
            or wanted in " ".join(product.bullets).lower() or wanted in product.description.lower())


def normal_colour(option: Any) -> Any:
    """The first colour, by the alphabet, that is in an option; else the option.

    A pair (name, value) of a synthetic goal is that colour only where the value is exactly it.
    """
    return next((colour for colour in COLOURS if colour in option), option)


def alike(one: Any, other: Any) -> bool:
    """Whether the words of two options or attributes are about the same; a pair is compared as Python writes it."""
    return _ratio(str(one), str(other)) > ALIKE


@lru_cache(maxsize=100_000)
def _ratio(one: str, other: str) -> int:
    from rapidfuzz import fuzz, utils

    ratio = fuzz.token_set_ratio(one.translate(_LATIN_1), other.translate(_LATIN_1), processor=utils.default_process)
    return round(ratio)
