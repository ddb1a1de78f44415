"""Fictional shops in the file formats of WebShop, drawn from a seed.

    python -m experiments.webshop.shops --seed 0 --products 400 --out DIR

The embedded catalogue is `--seed 0 --products 400`. A small reading model is trained in shops of the other family
("generic"): they share no product, no set of attributes of a kind, and no goal with those of the first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import string
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.webshop.kinds import KINDS, Sold

Family = Literal["embedded", "generic"]
_STARTS = {"embedded": ("Bram", "Cald", "Fen", "Hol", "Kest", "Mar", "Ost", "Pell", "Rav", "Thorn", "Wil", "Yar"),
           "generic": ("Ald", "Brin", "Cor", "Dun", "Elm", "Gar", "Hax", "Jor", "Lan", "Nev", "Quil", "Stav")}
_ENDS = {"embedded": ("bury", "croft", "dale", "field", "gate", "haven", "lock", "mere", "wick", "worth"),
         "generic": ("by", "den", "ford", "ham", "ley", "moor", "rick", "sett", "ton", "vale")}
_LEADS = ("premium", "everyday", "signature", "classic", "studio", "weekend", "heritage", "urban")
_BULLETS = ("{a}: made for people who look for {a}.", "Comes with {a}, checked piece by piece.",
            "What sets it apart: {a}.", "Our customers ask for {a}, and here it is.")
_SAYINGS = ("The {noun} of {brand} is made in small runs.", "It arrives in plain paper, without plastic.",
            "Please compare the measures before you order.", "A {lead} {noun} for daily use.",
            "Questions are answered within a day.", "It makes a good present as well.")
_ASKING = ("i need {what}", "i am looking for {what}", "i'm looking for {what}", "find me {what}", "i want {what}",
           "could you find me {what}", "show me {what}", "i would like to buy {what}", "please get me {what}",
           "i want to order {what}", "looking for {what}", "get me {what}", "we need {what} for our home",
           "can you help me find {what}")
_SIGNS = [sign for sign in string.digits + string.ascii_uppercase if sign not in "IO"]
WITHOUT_PRICE, WITH_RANGE, WITH_SYNTHETIC, ASKED_FOR = 0.04, 0.12, 0.6, 0.7


class Shop(NamedTuple):
    """The content of the three files."""

    items: list[dict[str, Any]]
    attributes: dict[str, dict[str, Any]]
    human: dict[str, list[dict[str, Any]]]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("items_shuffle", self.items), ("items_ins_v2", self.attributes),
                              ("items_human_ins", self.human)):
            text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def generate(seed: int, products: int, family: Family = "embedded", goals: int = 250) -> Shop:
    """A shop of so many products; for some of them, up to `goals`, somebody asks in their own words."""
    rng = random.Random(f"{family}/{seed}")
    shop, seen = Shop([], {}, {}), set[str]()
    asked: set[str] = set()
    while len(shop.items) < products:
        kind = KINDS[len(shop.items) % len(KINDS)]
        item = _item(kind, family, rng)
        if item["name"] in seen or item["asin"] in shop.attributes:
            continue
        seen.add(item["name"])
        attributes = item.pop("_attributes")
        shop.items.append(item)
        shop.attributes[item["asin"]] = _about(kind, attributes, rng)
        if len(shop.human) < goals and rng.random() < ASKED_FOR:
            said = _instruction(kind, item, attributes, rng)
            if said["instruction"] not in asked:
                asked.add(said["instruction"])
                shop.human[item["asin"]] = [said]
    rng.shuffle(shop.items)
    return shop


def belongs(family: Family, kind: Sold, attributes: tuple[str, ...]) -> bool:
    """Whether a set of attributes of a kind is one of this family's: each has half of them."""
    text = f"{kind.query}/{'/'.join(sorted(attributes))}"
    return (hashlib.blake2b(text.encode(), digest_size=1).digest()[0] % 2 == 0) == (family == "embedded")


def _item(kind: Sold, family: Family, rng: random.Random) -> dict[str, Any]:
    while True:
        attributes = tuple(rng.sample(kind.attributes, rng.randint(3, 5)))
        if belongs(family, kind, attributes):
            break
    brand = rng.choice(_STARTS[family]) + rng.choice(_ENDS[family])
    noun, lead = rng.choice(kind.nouns), rng.choice(_LEADS)
    words = {"brand": brand, "noun": noun, "lead": lead}
    name = f"{brand} {lead} {noun}, {attributes[0]}".title().replace("'S", "'s")
    options = {option: sorted(rng.sample(values, rng.randint(min(3, len(values)), len(values))), key=values.index)
               for option, values in kind.options.items() if rng.random() < 0.85}
    bullets = [rng.choice(_BULLETS).format(a=attribute) for attribute in attributes]
    asin = "Z" + "".join(rng.choice(_SIGNS) for _ in range(9))
    return {
        "name": name, "full_description": " ".join(one.format(**words) for one in rng.sample(_SAYINGS, 3)),
        "pricing": _pricing(kind, rng), "images": [], "product_category": kind.path, "average_rating": "",
        "small_description": [bullet[0].upper() + bullet[1:] for bullet in bullets],
        "customization_options": {option: [{"value": value, "price": 0.0, "image": None} for value in values]
                                  for option, values in options.items()} or "",
        "asin": asin, "category": kind.category, "query": kind.query, "_attributes": attributes}


def _pricing(kind: Sold, rng: random.Random) -> str:
    """A price, a range, or none, as the benchmark's files write them."""
    low, high = kind.dollars
    price = round(rng.uniform(low, high) - 0.01, 2)
    draw = rng.random()
    if draw < WITHOUT_PRICE:
        return ""
    return f"${price}${round(price * rng.uniform(1.2, 1.8), 2)}" if draw < WITHOUT_PRICE + WITH_RANGE else f"${price}"


def _about(kind: Sold, attributes: tuple[str, ...], rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {"attributes": list(attributes)}
    if rng.random() < WITH_SYNTHETIC:
        wanted = rng.sample(attributes, rng.randint(1, 3))
        found["instruction"] = f"Find me {', '.join(wanted)} {kind.query}"
        found["instruction_attributes"] = wanted
    return found


def _instruction(kind: Sold, item: dict[str, Any], attributes: tuple[str, ...], rng: random.Random) -> dict[str, Any]:
    """What somebody says who wants this product: one to three attributes, and some of its options."""
    wanted = rng.sample(attributes, rng.randint(1, 3))
    options = item["customization_options"] or {}
    chosen = {name: rng.choice(values)["value"] for name, values in options.items() if rng.random() < 0.7}
    noun = next(noun for noun in kind.nouns if noun.title() in item["name"])
    what = f"{'some' if noun.endswith('s') else 'a'} {wanted[0]} {noun}"
    if len(wanted) > 1:
        what += rng.choice((" with {}", " that has {}", " and {}")).format(" and ".join(wanted[1:]))
    for name, value in chosen.items():
        what += rng.choice((" in {v}", ", {n} {v}", " and the {n} should be {v}")).format(v=value, n=name.split()[0])
    return {"asin": item["asin"], "instruction": rng.choice(_ASKING).format(what=what) + ".",
            "attributes": list(attributes), "options": [f"{name}: {value}" for name, value in chosen.items()],
            "instruction_attributes": wanted, "instruction_options": list(chosen.values())}


def overlap(one: Shop, other: Shop) -> dict[str, int]:
    """What two shops have in common: names, ids, sets of attributes of a kind, and goals."""
    def facts(shop: Shop) -> dict[str, set[Any]]:
        return {"names": {item["name"] for item in shop.items}, "ids": set(shop.attributes),
                "attributes of a kind": {(item["query"], *sorted(shop.attributes[item["asin"]]["attributes"]))
                                         for item in shop.items},
                "goals": {said["instruction"] for sayings in shop.human.values() for said in sayings}}
    mine, theirs = facts(one), facts(other)
    return {what: len(mine[what] & theirs[what]) for what in mine}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--products", type=int, default=400)
    parser.add_argument("--family", choices=("embedded", "generic"), default="embedded")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    shop = generate(args.seed, args.products, args.family)
    shop.write(args.out)
    print(f"{len(shop.items)} products, {len(shop.human)} goals in words, in {args.out}")


if __name__ == "__main__":
    main()
