"""What a page shows, as the text nodes of the original's pages, and the three ways in which agents read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from stl_programs.environments.webshop.catalogue import Product

View = Literal["text", "text_rich", "compact"]
BACK, NEXT, PREVIOUS, BUY, SEARCH = "Back to Search", "Next >", "< Prev", "Buy Now", "Search"
SUBPAGES = ("Description", "Features", "Reviews", "Attributes")
PER_PAGE, MOST_RESULTS = 10, 50
SCORE = "Your score (min 0.0, max 1.0)"


class Node(NamedTuple):
    """A piece of visible text. Of an option's value, `option` names the option."""

    kind: Literal["text", "button", "product", "value"]
    text: str
    option: str = ""


Page = tuple[Node, ...]


def _texts(*texts: str) -> list[Node]:
    return [Node("text", text) for text in texts if text.strip()]


def _buttons(*texts: str) -> list[Node]:
    return [Node("button", text) for text in texts]


def index_page(instruction: str) -> Page:
    """Where a session begins: the goal, and a search bar."""
    return (*_texts("WebShop", "Instruction: ", instruction), *_buttons(SEARCH))


def results_page(instruction: str, products: Sequence[Product], number: int, total: int) -> Page:
    """The `number`-th ten of the products that were found; there is always a next one, also an empty one."""
    nodes = [*_texts("Instruction:", instruction), *_buttons(BACK),
             *_texts(f"Page {number} (Total results: {total})"), *_buttons(*[PREVIOUS] * (number > 1), NEXT)]
    for product in products:
        nodes += [Node("product", product.asin), *_texts(product.title, product.price_tag)]
    return tuple(nodes)


def item_page(instruction: str, product: Product, attributes: bool) -> Page:
    """A product with its options; `attributes`: with a button to the page of its attributes."""
    nodes = [*_texts("Instruction:", instruction), *_buttons(BACK, PREVIOUS)]
    for name, values in product.options:
        nodes += [*_texts(name), *(Node("value", value, name) for value in values if value.strip())]
    nodes += _texts(product.title, f"Price: {product.price_tag}", "Rating: N.A.")
    return (*nodes, *_buttons(*SUBPAGES[:4 if attributes else 3], BUY))


def sub_page(instruction: str, product: Product, name: str) -> Page:
    """What the page of that name says of a product; no product has reviews."""
    said = {"Description": [product.description], "Features": [f" {bullet.strip()} " for bullet in product.bullets],
            "Reviews": [], "Attributes": [f" {attribute} " for attribute in product.attributes]}[name]
    return (*_texts("Instruction:", instruction), *_buttons(BACK, PREVIOUS), *_texts(*said))


def done_page(asin: str, options: dict[str, str], reward: float) -> Page:
    """After the purchase."""
    return tuple(_texts(
        "Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)", "Purchased",
        "asin", asin, "options", html_json(options), "attrs", "None", "category", "None", "query", "None",
        "product category", "None", "Target", "asin", "options", "attrs", "price upper", "instuction text", "category",
        "product category", "query", "Goal ", "None", "Reward", SCORE, str(reward), "Reward Details ", "None"))


def html_json(options: dict[str, str]) -> str:
    """JSON in which nothing closes a tag, as the original's templates write it."""
    text = json.dumps(options, sort_keys=True)
    for letter in "<>&'":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def clickables(page: Page) -> dict[str, Node]:
    """What can be clicked, by the text in lower case: buttons, products, then option values.

    Of equal texts the last counts, at the place of the first.
    """
    found = {node.text.lower(): node for node in page if node.kind == "button"}
    found.update((node.text.lower(), node) for node in page if node.kind == "product")
    found.update((node.text, node) for node in page if node.kind == "value")
    return found


# How agents read it

def plain(page: Page) -> str:
    """The observation `text`: every text, joined by [SEP]."""
    return " [SEP] ".join(node.text.strip() for node in page)


def rich(page: Page, url: str, visited: Iterable[str]) -> str:
    """The observation `text_rich`: one text a line, with what is a button, and which were clicked.

    A value counts as chosen where the address has it between double quotes: one with a quote of its own never does.
    """
    found, seen = "", set(visited)
    for node in page:
        if node.kind == "button":
            found += f"[button] {node.text} [button_]\n"
        elif node.kind == "product":
            kind = "clicked button" if node.text in seen else "button"
            found += f"\n[{kind}] {node.text} [{kind}_]\n"
        elif node.kind == "value" and f'"{node.text}"' in url:
            found = f"You have clicked {node.text}.\n{found}  [clicked button] {node.text} [clicked button_]\n"
        elif node.kind == "value":
            found += f"  [button] {node.text} [button_]\n"
        else:
            found += f"{node.text}\n"
    return found


def compact(page: Page, url: str, shown: int = 3) -> str:
    """The form that published search agents read: `[Buy Now]`, options in one line, [[chosen]] ones.

    Args:
        url: with the options as Python writes them; a value between single quotes in it counts as chosen.
        shown: of the products on a page of results so many have their title and price.
    """
    score = next((i for i, node in enumerate(page) if node.text == SCORE), None)
    if score is not None:
        return f"{SCORE}: {page[score + 1].text}"
    found, texts, products = "", 0, 0
    hidden = 0 if page[0].text == "WebShop" else 2  # the instruction
    for node in page:
        if node.kind == "value":
            found += f"[[{node.text}]]" if f"'{node.text}'" in url else f"[{node.text}]"
        elif node.kind in ("button", "product"):
            products += node.kind == "product"
            found += f"\n[{node.text}] "
        else:
            texts += 1
            found += f"\n{node.text} " if texts > hidden and products <= shown else ""
    return found
