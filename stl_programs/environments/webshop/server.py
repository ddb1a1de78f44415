"""The shop over HTTP, with the addresses that published clients use. Sessions cost nothing: a page is its address."""

from __future__ import annotations

import ast
import random
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from stl_programs.environments.webshop.goals import draw
from stl_programs.environments.webshop.html import address, chosen_options, render
from stl_programs.environments.webshop.pages import BUY, SUBPAGES
from stl_programs.environments.webshop.shop import Session
from stl_programs.environments.webshop.world import WebShop
from stl_programs.errors import StlError, TaskError
from stl_programs.outside import shown

MOST_SESSIONS = 100_000
"""Sessions with a drawn goal that are remembered; beyond it the oldest is forgotten."""
LONGEST_NAME, LONGEST_OPTIONS, LONGEST_QUERY, LAST_PAGE = 100, 4000, 1000, 10_000
HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
                                      "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
           "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Desk:
    """Answers requests.

    A session `fixed_N` has goal N; any other is given one by weight when it is first seen.

    Args:
        shop: what is sold, and its goals.
        seed: of the goals that are drawn.
        hosts: names by which the server may be addressed; None for any. A page of another site cannot reach it then.
    """

    def __init__(self, shop: WebShop, seed: int = 0, hosts: frozenset[str] | None = None):
        self.shop, self.hosts = shop.shop, hosts
        self._goals: OrderedDict[str, int] = OrderedDict()
        self._rng = random.Random(seed)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=2**16)
        app.router.add_get("/", self._first)
        app.router.add_get("/{name}", self._index)
        app.router.add_post("/{name}", self._search)
        app.router.add_get(r"/search_results/{name}/{query:.*}/{page}", self._results)
        app.router.add_get(r"/item_page/{name}/{asin}/{query:.*}/{page:[0-9]+}/{options:.*}", self._item)
        app.router.add_get(r"/item_sub_page/{name}/{asin}/{query:.*}/{page:[0-9]+}/{sub:[A-Za-z]+}/{options:.*}",
                           self._sub)
        app.router.add_get(r"/choose/{name}/{asin}/{query:.*}/{page:[0-9]+}/{button}", self._choose)
        app.router.add_get(r"/done/{name}/{asin}/{options:.*}", self._done)
        return app

    @web.middleware
    async def _guard(self, request: web.Request,
                     handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """What is asked wrongly gets one line; every answer gets the headers."""
        try:
            if self.hosts is not None and (request.url.host or "") not in self.hosts:
                raise web.HTTPForbidden(text=f"this shop is not called {shown(request.url.host)}")
            response = await handler(request)
        except StlError as error:
            response = web.Response(status=400, text=str(error))
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        response.headers.update(HEADERS)
        return response

    # Sessions

    def _begun(self, name: str) -> Session:
        """The session of that name at its beginning, with a goal."""
        if len(name) > LONGEST_NAME:
            raise TaskError(f"a session's name of {len(name)} characters; at most {LONGEST_NAME}")
        if name.startswith("fixed_"):
            number = name.removeprefix("fixed_")
            if not re.fullmatch("[0-9]{1,9}", number) or int(number) >= len(self.shop.goals):
                raise TaskError(f"{shown(name)}: goals are fixed_0 to fixed_{len(self.shop.goals) - 1}")
            return Session(int(number))
        if name not in self._goals:
            self._goals[name] = draw(self.shop.goals, self._rng)
            if len(self._goals) > MOST_SESSIONS:
                self._goals.popitem(last=False)
        return Session(self._goals[name])

    def _known(self, request: web.Request) -> tuple[str, Session]:
        """The session that a request names. Raises TaskError for one that nobody began."""
        name = request.match_info["name"]
        if not name.startswith("fixed_") and name not in self._goals:
            raise TaskError(f"no session {shown(name)}: GET /{name[:LONGEST_NAME]} begins it")
        session = self._begun(name)
        if "query" in request.match_info:
            page = request.match_info["page"]
            if not re.fullmatch("[0-9]{1,5}", page) or not 1 <= int(page) <= LAST_PAGE:
                raise TaskError(f"page {shown(page)} of the results; from 1 to {LAST_PAGE}")
            session = session._replace(keywords=keywords_of(request.match_info["query"]), number=int(page))
        if "asin" in request.match_info:
            asin = request.match_info["asin"]
            if asin not in self.shop.catalogue.by_asin:
                raise TaskError(f"no product {shown(asin)}")
            session = session._replace(asin=asin)
        if "options" in request.match_info:
            session = session._replace(options=options_of(request.match_info["options"]))
        return name, session

    # Pages

    async def _first(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(f"/visitor_{self._rng.randrange(10**9)}")

    async def _index(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return self._page(self._begun(name), name)

    async def _search(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        said = (await request.post()).get("search_query", "")
        session = self._begun(name)
        query = keywords_of(said.lower() if isinstance(said, str) else "")
        raise web.HTTPSeeOther(address(session._replace(kind="results", keywords=query), name))

    async def _results(self, request: web.Request) -> web.Response:
        name, session = self._known(request)
        return self._page(session._replace(kind="results"), name)

    async def _item(self, request: web.Request) -> web.Response:
        name, session = self._known(request)
        return self._page(session._replace(kind="item"), name)

    async def _sub(self, request: web.Request) -> web.Response:
        name, session = self._known(request)
        sub = request.match_info["sub"]
        if sub not in SUBPAGES:
            raise TaskError(f"no page {shown(sub)}; there are {', '.join(SUBPAGES)}")
        return self._page(session._replace(kind="sub", sub=sub), name)

    async def _choose(self, request: web.Request) -> web.Response:
        """Where the form of a product's page leads, with the options that it sent."""
        name, session = self._known(request)
        button = request.match_info["button"]
        options = dict(self.shop.catalogue.by_asin[session.asin].options)
        session = session._replace(options=chosen_options(request.query, options))
        if button == BUY:
            raise web.HTTPSeeOther(address(session._replace(kind="done"), name))
        if button not in SUBPAGES:
            raise TaskError(f"no button {shown(button)}")
        raise web.HTTPSeeOther(address(session._replace(kind="sub", sub=button), name))

    async def _done(self, request: web.Request) -> web.Response:
        name, session = self._known(request)
        return self._page(session._replace(kind="done"), name)

    def _page(self, session: Session, name: str) -> web.Response:
        return web.Response(text=render(self.shop.page(session), session, name), content_type="text/html")


def keywords_of(text: str) -> tuple[str, ...]:
    """The keywords that an address or a form says: words, or a list of them as Python writes it."""
    if not 0 < len(text.strip()) <= LONGEST_QUERY:
        raise TaskError(f"a search of {len(text)} characters; from 1 to {LONGEST_QUERY}")
    if text.startswith("["):
        found = _literal(text, "the keywords")
        if isinstance(found, list) and found and all(isinstance(word, str) for word in found):
            return tuple(found)
    return tuple(text.replace("+", " ").split(" "))


def options_of(text: str) -> tuple[tuple[str, str], ...]:
    """Options from an address, where they are a dict as Python writes it; none where there is no dict.

    Raises TaskError for what is no dict of texts.
    """
    if not text.startswith("{"):
        return ()
    found = _literal(text, "the options")
    if not (isinstance(found, dict) and all(isinstance(part, str) for pair in found.items() for part in pair)):
        raise TaskError(f"the options {shown(text)} are no dict of texts, like {{'size': 'large'}}")
    return tuple(found.items())


def _literal(text: str, what: str) -> Any:
    """A literal, and nothing that runs."""
    if len(text) > LONGEST_OPTIONS:
        raise TaskError(f"{what} have {len(text)} characters; at most {LONGEST_OPTIONS}")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise TaskError(f"{what} {shown(text)} are not as Python writes them, like {{'size': 'large'}}") from None
