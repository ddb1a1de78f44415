"""The shop: sessions are values that never change, so that branching costs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from stl_programs.environments.retrieval.index import Index
from stl_programs.environments.webshop import pages
from stl_programs.environments.webshop.catalogue import Catalogue, Product
from stl_programs.environments.webshop.goals import Goal
from stl_programs.environments.webshop.pages import BACK, BUY, NEXT, PREVIOUS, SEARCH, SUBPAGES, Node, Page, View
from stl_programs.environments.webshop.reward import Reward, reward
from stl_programs.environments.webshop.tagger import Tagger

Kind = Literal["index", "results", "item", "sub", "done"]


class Session(NamedTuple):
    """Where somebody stands in the shop.

    `goal`: its number. `keywords`, `number`: of the search, and the page of its results. `options`: chosen values by
    the name of the option, in the order of the first choice. `visited`: products that were looked at.
    """

    goal: int
    kind: Kind = "index"
    keywords: tuple[str, ...] = ()
    number: int = 1
    asin: str = ""
    options: tuple[tuple[str, str], ...] = ()
    sub: str = ""
    visited: frozenset[str] = frozenset()


class Shop:
    """Pages, clicks, searches and rewards over one catalogue and its goals; it changes nothing that is there.

    Args:
        prices: of each product, in dollars.
        attributes: items have a page of their attributes.
    """

    def __init__(self, catalogue: Catalogue, index: Index, order: tuple[str, ...], goals: list[Goal],
                 prices: Mapping[str, float], tagger: Tagger, attributes: bool = False):
        self.catalogue, self.index, self.order = catalogue, index, order
        self.goals, self.prices, self.tagger, self.attributes = goals, prices, tagger, attributes
        self._remember()

    def _remember(self) -> None:
        self.found = lru_cache(maxsize=4096)(self._found)
        """The products of a search, best first; what was asked lately is kept."""
        self.page = lru_cache(maxsize=4096)(self._page)
        """What a session shows; what was asked lately is kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("found", "page")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remember()

    def step(self, session: Session, action: str) -> Session:
        """The session after `search[...]` or `click[...]`; the same where that is not possible here."""
        return follow(session, self.page(session), action)

    # What is seen

    def _page(self, session: Session) -> Page:
        text = self.goals[session.goal].text
        if session.kind == "index":
            return pages.index_page(text)
        if session.kind == "results":
            found = self.found(" ".join(session.keywords))
            start = (session.number - 1) * pages.PER_PAGE
            return pages.results_page(text, found[start:start + pages.PER_PAGE], session.number, len(found))
        product = self.catalogue.by_asin[session.asin]
        if session.kind == "item":
            return pages.item_page(text, product, self.attributes)
        if session.kind == "sub":
            return pages.sub_page(text, product, session.sub)
        return pages.done_page(session.asin, dict(session.options), self.reward(session).total)

    def _found(self, query: str) -> tuple[Product, ...]:
        return tuple(self.catalogue.by_asin[self.order[number]]
                     for number in self.index.search(query, pages.MOST_RESULTS))

    def show(self, session: Session, view: View, shown: int = 3) -> str:
        """The page as `text`, `text_rich`, or in the compact form with titles of so many products."""
        page = self.page(session)
        if view == "text":
            return pages.plain(page)
        if view == "text_rich":
            return pages.rich(page, self.url(session), session.visited)
        return pages.compact(page, self.url(session, json_options=False), shown)

    def clickables(self, session: Session) -> list[str]:
        """What can be clicked, in lower case."""
        return list(self.clickables_of(session))

    def clickables_of(self, session: Session) -> dict[str, Node]:
        """The same, each with what it is."""
        return pages.clickables(self.page(session))

    def url(self, session: Session, name: str = "", json_options: bool = True) -> str:
        """The path of the page in the original's addresses; `name` of the session, by default its goal's number."""
        name, query, options = name or str(session.goal), "+".join(session.keywords), dict(session.options)
        if session.kind == "index":
            return f"/{name}"
        if session.kind == "results":
            return f"/search_results/{name}/{query}/{session.number}"
        if session.kind == "item":
            chosen = json.dumps(options) if json_options else options
            return f"/item_page/{name}/{session.asin}/{query}/{session.number}/{chosen}"
        if session.kind == "sub":
            return f"/item_sub_page/{name}/{session.asin}/{query}/{session.number}/{session.sub}/{options}"
        return f"/done/{name}/{session.asin}/{options}"

    def reward(self, session: Session) -> Reward:
        """Of buying what the session looks at, with the chosen options."""
        return reward(self.catalogue.by_asin[session.asin], dict(session.options), self.prices[session.asin],
                      self.goals[session.goal], self.tagger)


def follow(session: Session, page: Page, action: str) -> Session:
    """The session after an action on the page that it shows; the same where the page does not have it."""
    name, argument = parse_action(action)
    argument = argument.lower()
    if session.kind == "done":
        return session
    if name == "search" and argument:
        return _results(session, tuple(argument.split(" ")), 1)
    node = pages.clickables(page).get(argument) if name == "click" else None
    if node is None or argument == SEARCH.lower():
        return session
    if argument == BUY.lower():
        return session._replace(kind="done")
    if argument == BACK.lower():
        return Session(session.goal)
    if argument == NEXT.lower() and session.kind == "results":
        return _results(session, session.keywords, session.number + 1)
    if argument == PREVIOUS.lower() and session.kind == "results":
        return _results(session, session.keywords, session.number - 1)
    if argument == PREVIOUS.lower() and session.kind == "item":
        return _results(session, session.keywords, session.number)
    if sub := next((sub for sub in SUBPAGES if sub.lower() == argument), None):
        return session._replace(kind="sub", sub=sub)
    if node.kind == "product":
        return session._replace(kind="item", asin=node.text, visited=session.visited | {node.text})
    if node.kind == "value":
        return session._replace(options=tuple({**dict(session.options), node.option: argument}.items()))
    return session._replace(kind="item", sub="")  # back from a sub-page


def _results(session: Session, keywords: tuple[str, ...], number: int) -> Session:
    return session._replace(kind="results", keywords=keywords, number=number, asin="", options=(), sub="")


def parse_action(text: str) -> tuple[str, str]:
    """Name and argument of `name[argument]`; an empty argument where it is none.

    The last opening bracket counts, as upstream: "search[a [b] c]" is no search.
    """
    line = text.split("\n", 1)[0]
    end = line.rfind("]")
    start = line.rfind("[", 1, max(end - 1, 0))
    return (line[:start], line[start + 1:end]) if start > 0 else (text, "")
