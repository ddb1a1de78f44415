"""WebShop over HTTP: a server of ours, or an original one, as a world. A page is its address, so branching is free."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple
from urllib.parse import quote

from signatures.webshop import SCALE, ChooseOnPage, EstimatePage, LookaheadPage
from stl_programs.construct import Count, Positive, checked
from stl_programs.environments.base import Environment
from stl_programs.environments.remote import Web
from stl_programs.environments.webshop.pages import SCORE, Node, Page, clickables, compact
from stl_programs.environments.webshop.reading import read_page
from stl_programs.environments.webshop.shop import Session, follow
from stl_programs.environments.webshop.world import KEYWORDS, NAVIGATION, Purchase, named, searches
from stl_programs.errors import StlError, TaskError
from stl_programs.outside import parse_json, parsed, shown
from stl_programs.records import Action, State, Task, Transition
from stl_programs.situations import Situation


class Seen(NamedTuple):
    """What a state knows: where it is in the shop, the goal in words, and the page's nodes."""

    session: Session
    instruction: str
    page: Page


class WebShopClient(Environment):
    """The shop behind a URL.

    Buying is judged and not taken; `commit` takes it once. The reward is what the server says of the purchase, asked
    for after the search.

    Args:
        url: of the server, without a path.
        goals: how many there are: `fixed_0` to `fixed_{goals - 1}`.
        shown: products that the compact form gives with title and price.
        browse: possible actions include going back, further results and sub-pages.
        max_depth: actions of a trajectory at most. seconds: that one request may take.

    Raises SettingError for what is no address.

    Example:
        >>> env = WebShopClient("http://127.0.0.1:3000", goals=500)
        >>> program = GreedySearch(env, Policy(env.policy_signature, "openai/gpt-4o"), value)
    """

    name = "webshop-server"
    scale = SCALE
    policy_signature = ChooseOnPage
    value_signature = EstimatePage
    lookahead_signature = LookaheadPage
    cyclic = True
    pure = False
    settings = ("url", "shown", "browse")

    @checked
    def __init__(self, url: str, *, goals: Count = 500, shown: Count = 10, browse: bool = False, max_depth: Count = 10,
                 seconds: Positive = 30.0):
        self.web = Web(url, "a WebShop server", seconds)
        self.url, self.goals, self.shown, self.browse, self.max_depth = self.web.url, goals, shown, browse, max_depth
        self._begun: set[str] = set()

    def task(self, text: str) -> Task:
        """The goal of that number: "3" or "fixed_3"; its words are read when it is begun."""
        number = text.strip().removeprefix("fixed_")
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) >= self.goals:
            raise TaskError(f"{shown(text)} is no goal: there are fixed_0 to fixed_{self.goals - 1}")
        return Task(f"fixed_{int(number)}", f"fixed_{int(number)}")

    def tasks(self, split: str) -> list[Task]:
        """Only "test": every goal, in order."""
        if split != "test":
            raise TaskError(f"no split {split!r}; a server has only test")
        return [self.task(str(number)) for number in range(self.goals)]

    async def areset(self, task: Task) -> State:
        page = await self._page(task, Session(0))
        texts = [node.text.strip() for node in page if node.kind == "text"]
        place = next((i for i, text in enumerate(texts) if text.startswith("Instruction")), None)
        if place is None:
            raise StlError(f"{self.web.url} shows no instruction at /{task.id}; is it a WebShop server?")
        instruction = texts[place].removeprefix("Instruction:").strip() or " ".join(texts[place + 1:place + 2])
        return self._state(task, Session(0), instruction, page, ())

    async def astep(self, state: State, action: Action) -> Transition:
        """The page after a click or a search; the same page for what is not possible on it."""
        seen: Seen = state.data
        session = follow(seen.session, seen.page, action.text)
        task = Task(*json.loads(state.key)[0])
        page = seen.page if session == seen.session else await self._page(task, session)
        after = self._state(task, session, seen.instruction, page, (*state.history, action.text))
        return Transition(after, terminated=after.terminal)

    def _state(self, task: Task, session: Session, instruction: str, page: Page, history: tuple[str, ...]) -> State:
        text = compact(page, self._path(task.id, session), self.shown)
        known = [[task.id, task.text], session.kind, session.keywords, session.number, session.asin,
                 sorted(session.options), session.sub]
        return State(text, json.dumps(known), history, session.kind == "done", Seen(session, instruction, page))

    async def _page(self, task: Task, session: Session) -> Page:
        """The nodes of a page. Raises StlError where it is none of a shop."""
        if session.kind == "index" or task.id not in self._begun:  # an original server knows sessions that began
            first = read_page(await self.web.text(f"/{task.id}"))
            self._begun.add(task.id)
        page = first if session.kind == "index" else read_page(
            await self.web.text(quote(self._path(task.id, session))))
        if not page or not (session.kind == "done" or any(node.kind == "button" for node in page)):
            raise StlError(f"{self.web.url} shows no page of a shop at {shown(self._path(task.id, session))}, but "
                           f"{shown(' '.join(node.text for node in page)[:80])}; look at the server")
        return page

    @staticmethod
    def _path(name: str, session: Session) -> str:
        query, options = " ".join(session.keywords).replace("/", " "), dict(session.options)
        where = f"{name}/{session.asin}/{query}/{session.number}"
        return {"index": f"/{name}", "results": f"/search_results/{name}/{query}/{session.number}",
                "item": f"/item_page/{where}/{options}", "sub": f"/item_sub_page/{where}/{session.sub}/{options}",
                "done": f"/done/{name}/{session.asin}/{options}"}[session.kind]

    def reset(self, task: Task) -> State:
        raise StlError(f"{self.name} is asked over the network: await areset(task) in place of reset(task)")

    def step(self, state: State, action: Action) -> Transition:
        raise StlError(f"{self.name} is asked over the network: await astep(state, action) in place of step")

    def action(self, state: State, text: str) -> Action:
        return named(text)

    def legal_actions(self, state: State) -> list[Action]:
        seen: Seen = state.data
        if state.terminal:
            return []
        if seen.session.kind == "index":
            return searches(seen.instruction)
        chosen = dict(seen.session.options)
        return [named(f"click[{text}]") for text, node in clickables(seen.page).items()
                if (self.browse or text not in NAVIGATION) and chosen.get(node.option) != text]

    def choices(self, state: State) -> int | None:
        return None if state.data.session.kind == "index" else len(self.legal_actions(state))

    def fields(self, situation: Situation) -> dict[str, Any]:
        found = {**super().fields(situation), "task": situation.state.data.instruction}
        return {**found, "possible_actions": [KEYWORDS]} if situation.state.data.session.kind == "index" else found

    def answer(self, task: Task, state: State) -> str:
        """The purchase as JSON, "" where nothing was bought."""
        session: Session = state.data.session
        bought = session.kind == "done" or (state.untaken and session.asin)
        return json.dumps({"asin": session.asin, "options": dict(session.options)}) if bought else ""

    async def ascore(self, task: Task, answer: str) -> float:
        """What the server gives for the purchase."""
        self.check_sealed(task)
        if not answer:
            return 0.0
        bought = parsed(Purchase, parse_json(answer, "the answer is no purchase", TaskError),
                        "the answer is no purchase", TaskError)
        session = Session(0, "done", asin=bought.asin, options=tuple(bought.options.items()))
        page = await self._page(task, session)
        texts = [node.text.strip() for node in page]
        place = texts.index(SCORE) if SCORE in texts else -1
        if place < 0 or not re.fullmatch(r"[01](\.[0-9]{1,20})?", texts[place + 1] if place + 1 < len(texts) else ""):
            raise StlError(f"{self.web.url} shows no score of the purchase {shown(answer)}; look at the server")
        return float(texts[place + 1])

    def _score(self, task: Task, answer: str) -> float:
        raise StlError(f"{self.name} is asked over the network: await ascore(task, answer) in place of score")

    async def aclose(self) -> None:
        await self.web.aclose()

    def record(self, transition: Transition) -> dict[str, Any]:
        seen: Seen = transition.state.data
        session = {**seen.session._asdict(), "visited": sorted(seen.session.visited)}
        data = {"session": session, "instruction": seen.instruction, "page": [list(node) for node in seen.page]}
        return super().record(transition) | {"data": data}

    def restore(self, history: tuple[str, ...], row: dict[str, Any]) -> Transition:
        saved = row["data"]
        session = Session(**{**saved["session"], "keywords": tuple(saved["session"]["keywords"]),
                             "options": tuple(tuple(pair) for pair in saved["session"]["options"]),
                             "visited": frozenset(saved["session"]["visited"])})
        seen = Seen(session, saved["instruction"], tuple(Node(*node) for node in saved["page"]))
        return super().restore(history, {**row, "data": seen})


