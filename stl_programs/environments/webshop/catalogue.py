"""Products and their goals, from the files of WebShop: of any size, one product at a time."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from stl_programs.errors import TaskError
from stl_programs.outside import parsed, read_json

EMBEDDED = Path(__file__).parent / "embedded"
"""A fictional shop of our own making; experiments/webshop/shops.py writes it."""
DEFAULT_PRICE = 100.0
CHUNK = 2**22
"""Characters of a product file that are read at once."""
LARGEST = 2**31
"""Bytes of the attributes' and the instructions' file."""
LONGEST_PRODUCT = 2**24
"""Characters of one product."""
NAMES = {"items": ("items_shuffle.json", "items_shuffle_1000.json"),
         "attributes": ("items_ins_v2.json", "items_ins_v2_1000.json"), "human": ("items_human_ins.json",)}


class Instruction(NamedTuple):
    """What a person asked for in their own words, with what they meant of the product."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


class Product(NamedTuple):
    """One product, as pages, search and reward read it.

    `prices`: one, or the ends of a range, in dollars. `options`: name and values of each choice, lower case.
    `instruction`, `wanted`: the text of its synthetic goals, and the attributes that they ask for.
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    prices: tuple[float, ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str
    image: str = ""
    instruction: str | None = None
    wanted: tuple[str, ...] = ()
    human: tuple[Instruction, ...] = ()

    @property
    def price_tag(self) -> str:
        """The price as pages show it."""
        return f"${self.prices[0]}" if len(self.prices) == 1 else f"${self.prices[0]} to ${self.prices[1]}"

    @property
    def contents(self) -> str:
        """What the search reads of it."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options)
        return " ".join([self.title, self.description, self.bullets[0] if self.bullets else "", options]).lower()


class Catalogue:
    """Every product, in the order of its file.

    `name` says which catalogue it is: its file, how many products of it, and a hash of what they are.
    """

    def __init__(self, products: Sequence[Product], source: str):
        self.products = tuple(products)
        self.by_asin = {product.asin: product for product in self.products}
        hashed = hashlib.blake2b(digest_size=6)
        for product in self.products:
            hashed.update(repr(product).encode("utf-8", "surrogatepass"))
        self.hash = hashed.hexdigest()
        self.name = f"{source}, {len(self.products)} products, {self.hash}"

    @classmethod
    def load(cls, items: Path | None = None, attributes: Path | None = None, human: Path | None = None,
             most: int | None = None) -> Catalogue:
        """The catalogue of WebShop's files; without them the embedded one.

        Args:
            items: products (`items_shuffle*.json`), or a folder that holds all three files.
            attributes: their attributes and the instructions of synthetic goals (`items_ins_v2*.json`).
            human: people's instructions (`items_human_ins.json`).
            most: only so many products, the first.

        Raises TaskError, in one line, for a file that is missing, cut off, or of another form.
        """
        folder = EMBEDDED if items is None else items if Path(items).is_dir() else None
        if folder is not None:
            items = _in(folder, "items")
            attributes = attributes or _in(folder, "attributes")
            human = human or (_in(folder, "human") if any((folder / name).exists() for name in NAMES["human"])
                              else None)
        assert items is not None
        about = _table(attributes, About, "the attributes of products (items_ins_v2.json)")
        said = _table(human, Said, "people's instructions (items_human_ins.json)")
        products = list(_products(Path(items), about, said, most))
        if not products:
            raise TaskError(f"{items} holds no product; give the product file of WebShop (items_shuffle.json)")
        source = "embedded" if folder == EMBEDDED else Path(items).name
        _warn_of_gaps(products, source)
        return cls(products, source)


def _in(folder: Path, kind: str) -> Path:
    found = next((folder / name for name in NAMES[kind] if (folder / name).exists()), None)
    if found is None:
        raise TaskError(f"{folder} holds no {' or '.join(NAMES[kind])}; give the files of WebShop")
    return found


def _warn_of_gaps(products: Sequence[Product], source: str) -> None:
    """Say what a whole catalogue lacks: every product then costs or offers the same, which is rarely meant."""
    if all(product.prices == (DEFAULT_PRICE,) for product in products):
        warnings.warn(f"no product of {source} has a price: each costs ${DEFAULT_PRICE:.2f}", stacklevel=3)
    if not any(product.options for product in products):
        warnings.warn(f"no product of {source} has options: no goal asks for one", stacklevel=3)


# The files as they are

class Raw(BaseModel):
    """A product of `items_shuffle.json`; what is not read is not named."""

    model_config = ConfigDict(strict=True)

    asin: str
    name: str
    full_description: str | None
    small_description: list[str] | str | None
    pricing: str | None = None
    product_category: str
    category: str
    query: str
    customization_options: dict[str, list[Choice] | None] | str | None
    images: list[str] | None = None


class Choice(BaseModel):
    """One value of an option."""

    model_config = ConfigDict(strict=True)

    value: str


class About(BaseModel):
    """An entry of `items_ins_v2.json`."""

    model_config = ConfigDict(strict=True)

    attributes: list[str] = Field(default_factory=lambda: ["DUMMY_ATTR"])
    instruction: str | None = None
    instruction_attributes: list[str] | None = None


class Sentence(BaseModel):
    """An instruction of `items_human_ins.json`."""

    model_config = ConfigDict(strict=True)

    instruction: str
    instruction_attributes: list[str]
    instruction_options: list[str]


Said = list[Sentence]
Raw.model_rebuild()


def _table(path: Path | None, schema: Any, what: str) -> dict[str, Any]:
    if path is None:
        return {}
    found = read_json(Path(path), LARGEST, what, TaskError)
    if not isinstance(found, dict):
        raise TaskError(f"{path} is not {what}: it is a {type(found).__name__}, not an object; give that file")
    return {"schema": schema, "path": path, "what": what, "rows": found}


def _row(table: dict[str, Any], asin: str) -> Any:
    """The entry of a product, checked when it is needed; None where there is none."""
    if not table or asin not in table["rows"]:
        return None
    label = f"{table['path']} is not {table['what']}: {asin}"
    found = table["rows"][asin]
    if table["schema"] is About:
        return parsed(About, found, label, TaskError)
    if not isinstance(found, list):
        raise TaskError(f"{label} is a {type(found).__name__}, not a list; give that file")
    return [parsed(Sentence, entry, label, TaskError) for entry in found]


def _products(path: Path, about: dict[str, Any], said: dict[str, Any], most: int | None) -> Iterator[Product]:
    """The products of a file: no id twice, and none without one."""
    seen: set[str] = set()
    for place, found in enumerate(objects(path)):
        if most is not None and place >= most:
            return
        label = f"{path} is not the product file of WebShop: product {place}"
        raw = parsed(Raw, found, label, TaskError)
        if raw.asin == "nan" or len(raw.asin) > 10 or raw.asin in seen:
            continue
        seen.add(raw.asin)
        entry = _row(about, raw.asin) or About()
        sentences = _row(said, raw.asin) or []
        bullets = raw.small_description if isinstance(raw.small_description, list) else [raw.small_description or ""]
        yield Product(
            raw.asin, raw.name, raw.full_description or "", tuple(bullets), _prices(raw, label), _options(raw),
            tuple(entry.attributes), raw.category, raw.query.lower().strip(), raw.product_category,
            raw.images[0] if raw.images else "", entry.instruction, tuple(entry.instruction_attributes or ()),
            tuple(Instruction(one.instruction, tuple(one.instruction_attributes), tuple(one.instruction_options))
                  for one in sentences))


def _prices(raw: Raw, label: str) -> tuple[float, ...]:
    """The price, or the ends of its range; DEFAULT_PRICE where there is none."""
    if not raw.pricing:
        return (DEFAULT_PRICE,)
    figures = [re.sub(r"[^\d.]", "", figure) for figure in raw.pricing.split("$")[1:]]
    if not figures or not all(re.fullmatch(r"\d{1,12}(\.\d{0,12})?|\.\d{1,12}", figure) for figure in figures[:2]):
        raise TaskError(f"{label}: pricing is {raw.pricing[:40]!r}, no price like '$12.50' or '$5.00 - $9.99'; correct "
                        "it, or leave it empty")
    return tuple(float(Decimal(figure)) for figure in figures[:2])


def _options(raw: Raw) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(raw.customization_options, dict):
        return ()
    found: dict[str, tuple[str, ...]] = {}
    for name, choices in raw.customization_options.items():
        if choices is not None:
            found[name.lower()] = tuple(choice.value.strip().replace("/", " | ").lower() for choice in choices)
    return tuple(found.items())


def objects(path: Path) -> Iterator[Any]:
    """The entries of a JSON array one after another, without holding the file in memory.

    Raises TaskError for a file that is missing, no array, or cut off.
    """
    decoder, what = json.JSONDecoder(), "the product file of WebShop (items_shuffle.json)"
    try:
        with open(path, encoding="utf-8") as file:
            text, begun, place = "", False, 0
            while True:
                chunk = file.read(CHUNK)
                text = text[place:] + chunk
                place = 0
                if not begun:
                    if text.lstrip()[:1] != "[":
                        raise TaskError(f"{path} is not {what}: it does not begin with '['; give that file")
                    place, begun = text.index("[") + 1, True
                while True:
                    place = _skip(text, place)
                    if text[place:place + 1] == "]":
                        return
                    try:
                        found, after = decoder.raw_decode(text, place)
                    except json.JSONDecodeError:
                        break
                    yield found
                    place = after
                if not chunk:
                    raise TaskError(f"{path} is not {what}: it is cut off or damaged near {text[place:place + 40]!r}; "
                                    "download it again")
                if len(text) - place > LONGEST_PRODUCT:
                    raise TaskError(f"{path} is not {what}: a product of over {LONGEST_PRODUCT:,} characters; look at "
                                    "what it is")
    except (OSError, UnicodeDecodeError, RecursionError) as failure:
        reason = getattr(failure, "strerror", None) or type(failure).__name__
        raise TaskError(f"cannot read {path}: {reason}; give {what}") from None


def _skip(text: str, place: int) -> int:
    """The place of the next thing that is no white space and no comma."""
    while text[place:place + 1] in (" ", "\n", "\t", "\r", ",") and place < len(text):
        place += 1
    return place


def first_of(products: Iterable[Product], asins: Iterable[str]) -> list[Product]:
    """Those of `products` that have one of these ids, in order."""
    wanted = set(asins)
    return [product for product in products if product.asin in wanted]
