"""What is to be bought: goals of people, and goals made of attributes and options; with prices that can be repeated."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from stl_programs.environments.webshop.catalogue import Product
from stl_programs.errors import TaskError

Kind = Literal["human", "synthetic"]
SHUFFLE_SEED = 233
"""Of the published order of goals."""
NO_CAP = 1_000_000.0
"""Dollars that may be spent where a goal names no limit."""
_CAPS = [10.0 * tens for tens in range(1, 100)]


class Goal(NamedTuple):
    """One thing to buy.

    `options`: values (of people), or pairs of name and value (synthetic): the reward tells them apart, as upstream
    does. `price_upper`: dollars that may be spent. `weight`: how often it is drawn, relative to the others.
    """

    asin: str
    text: str
    attributes: tuple[str, ...]
    options: tuple[Any, ...]
    price_upper: float
    name: str
    category: str
    query: str
    product_category: str
    weight: float = 1.0


def generator(seed: Any) -> random.Random:
    """Of prices and price caps: seeded by a number, or in the state of upstream's, as `random.getstate()` gave it."""
    if isinstance(seed, int) and not isinstance(seed, bool):
        return random.Random(seed)
    found = random.Random()
    try:
        version, numbers, gauss = seed
        found.setstate((version, tuple(numbers), gauss))
    except (TypeError, ValueError):
        raise TaskError(f"seed={str(seed)[:60]!r} is neither a whole number nor a state of random.getstate()") from None
    return found


def draw_prices(products: Sequence[Product], rng: random.Random) -> dict[str, float]:
    """What each product costs in dollars: of a range a uniform draw, product by product."""
    return {product.asin: product.prices[0] if len(product.prices) == 1 else rng.uniform(*product.prices)
            for product in products}


def draw_goals(products: Sequence[Product], prices: dict[str, float], kind: Kind, rng: random.Random) -> list[Goal]:
    """Every goal of the catalogue in the published order. Raises TaskError where there is none."""
    goals = _human(products, prices, rng) if kind == "human" else _synthetic(products, prices, rng)
    if not goals:
        file = "items_human_ins.json" if kind == "human" else "items_ins_v2.json"
        other = "synthetic" if kind == "human" else "human"
        raise TaskError(f"the catalogue has no {kind} goals: none of its {len(products)} products has an instruction; "
                        f"give the {file} of the same catalogue, or goals={other!r}")
    random.Random(SHUFFLE_SEED).shuffle(goals)
    return goals


def _human(products: Sequence[Product], prices: dict[str, float], rng: random.Random) -> list[Goal]:
    goals = []
    for product in products:
        for said in product.human:
            if said.attributes:
                upper, text = _cap(prices[product.asin], rng)
                goals.append(_goal(product, said.text.strip(".") + text, said.attributes, said.options, upper))
    return goals


def _synthetic(products: Sequence[Product], prices: dict[str, float], rng: random.Random) -> list[Goal]:
    """One goal for each combination of option values; rare attributes weigh more."""
    goals: list[Goal] = []
    asked: Counter[str] = Counter()
    for product in products:
        if product.instruction is None or not product.wanted:
            continue
        upper, text = _cap(prices[product.asin], rng)
        options = dict(product.options)
        names = sorted(options)
        for values in itertools.product(*(options[name] for name in names)):
            pairs = tuple(zip(names, values, strict=True))
            chosen = ", and ".join(f"{name}: {value}" for name, value in pairs)
            words = f"{product.instruction}{' with ' + chosen if chosen else ''}{text}"
            goals.append(_goal(product, words, product.wanted, pairs, upper))
            asked.update(product.wanted)
    return [goal._replace(weight=sum(1 / asked[one] for one in goal.attributes) / len(goal.attributes))
            for goal in goals]


def _cap(price: float, rng: random.Random) -> tuple[float, str]:
    """The most that may be spent, and how the goal says so: the larger of two of the four next tens of dollars."""
    above = [cap for cap in _CAPS if cap > price][:4]
    if len(above) < 2:
        return NO_CAP, ""
    upper = max(rng.sample(above, 2))
    return upper, f", and price lower than {upper:.2f} dollars"


def _goal(product: Product, text: str, attributes: tuple[str, ...], options: tuple[Any, ...], upper: float) -> Goal:
    return Goal(product.asin, text, attributes, options, upper, product.title, product.category, product.query,
                product.product_category)


def draw(goals: Sequence[Goal], rng: random.Random) -> int:
    """The number of a goal, drawn by weight."""
    return rng.choices(range(len(goals)), [goal.weight for goal in goals])[0]
