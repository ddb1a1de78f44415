"""WebShop as a world to search: pages are states, and buying is a leaf that is judged and not taken."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from signatures.webshop import (
    OPTION_SCALE,
    SCALE,
    ChooseOnPage,
    EstimateOption,
    EstimatePage,
    LookaheadOption,
    LookaheadPage,
)
from stl_programs.construct import Count, checked
from stl_programs.environments.base import Environment, Judge
from stl_programs.environments.retrieval.index import Index
from stl_programs.environments.webshop.catalogue import Catalogue
from stl_programs.environments.webshop.goals import Goal, Kind, draw_goals, draw_prices, generator
from stl_programs.environments.webshop.pages import BACK, BUY, NEXT, PREVIOUS, SUBPAGES, View
from stl_programs.environments.webshop.reward import Reward, reward
from stl_programs.environments.webshop.shop import Session, Shop, parse_action
from stl_programs.environments.webshop.tagger import Tagger, tagger
from stl_programs.errors import TaskError
from stl_programs.outside import parse_json, parsed, shown
from stl_programs.records import Action, State, Task, Transition
from stl_programs.situations import Situation

PUBLISHED = {"test": (0, 500), "validation": (500, 1500), "train": (1500, None)}
"""The splits of the full data, by the place among its shuffled goals."""
LEAST_FOR_PUBLISHED = 2000
NAVIGATION = frozenset(word.lower() for word in (BACK, NEXT, PREVIOUS, *SUBPAGES))
KEYWORDS = "search[<keywords>]"
"""How possible actions name a search, which may be for anything."""
LONGEST_ACTION = 1000
IN_MEMORY = 5000
"""Of at most so many products the index is built anew each time, and not kept on disk."""
OPTION = "option"
"""The page, as judges know it, on which the last action selected an option."""
OPTION_JUDGE = {OPTION: Judge(EstimateOption, LookaheadOption, OPTION_SCALE, offset=True)}


class WebShop(Environment):
    """Find and buy what an instruction describes, in the shop of the WebShop benchmark.

    Without files it is the embedded shop: fictional, a few hundred products. With those of the benchmark it is the
    benchmark: the same products in the same order, the same pages and rewards. `click[buy now]` ends a task and is
    irreversible: searches judge it, `commit` takes it. An action that a page does not have changes nothing, as in the
    original; searches leave it out.

    Args:
        items: `items_shuffle*.json`, or a folder with all files of the benchmark.
        attributes: `items_ins_v2*.json`. human: `items_human_ins.json`.
        most: only the first so many products.
        goals: "human" instructions, or "synthetic" ones made of attributes and options.
        seed: of range prices and price caps, a number or what `random.getstate()` gave just before upstream drew them.
        view: "compact" as published agents read pages, or the benchmark's "text" or "text_rich".
        shown: products that the compact form gives with title and price.
        browse: the possible actions include going back, further pages of results and sub-pages. They can be taken in
            either case.
        attributes_page: products have a page of their attributes.
        judge_options: a page on which an option was just selected is judged by its own signature, 1 to 4, of which -2
            to 2 are added to what the product was worth (the paper does so where training data is made): the value then
            needs `Value(..., judges=env.judges)`.
        tags: finds the nouns that the reward compares: "auto" (spaCy's where its model is installed, else "rules"),
            "rules", "spacy", or a Tagger.
        max_depth: actions of a trajectory at most.
        cache: the folder that keeps the search index of a large catalogue; by default that of the user's caches.

    Raises TaskError for files that are missing, damaged, or hold no goal.

    Example:
        >>> env = WebShop()
        >>> task = env.tasks("test")[0]
        >>> page = env.step(env.reset(task), Action("search[ceramic mug]")).state
        >>> env.legal_actions(page)[0].text
        'click[z...]'
    """

    name = "webshop"
    scale = SCALE
    policy_signature = ChooseOnPage
    value_signature = EstimatePage
    lookahead_signature = LookaheadPage
    cyclic = True
    settings = ("provenance", "view", "shown", "browse", "attributes_page", "judge_options")

    @checked
    def __init__(self, items: str | Path | None = None, attributes: str | Path | None = None,
                 human: str | Path | None = None, *, most: Count | None = None, goals: Kind = "human", seed: Any = 0,
                 view: View = "compact", shown: Count = 10, browse: bool = False, attributes_page: bool = False,
                 judge_options: bool = False, tags: Any = "auto", max_depth: Count = 10,
                 cache: str | Path | None = None):
        files = [None if path is None else Path(path) for path in (items, attributes, human)]
        catalogue = Catalogue.load(files[0], files[1], files[2], most=most)
        rng = generator(seed)
        self.catalogue, self.tagger = catalogue, _tagger(tags)
        self.view, self.shown, self.browse, self.attributes_page = view, shown, browse, attributes_page
        self.max_depth, self.judge_options = max_depth, judge_options
        self.judges: Mapping[str, Judge] = OPTION_JUDGE if judge_options else {}
        prices = draw_prices(catalogue.products, rng)
        numbered = draw_goals(catalogue.products, prices, goals, rng)
        order = tuple(sorted(catalogue.by_asin))  # equally good products come in the order of their ids
        folder = None if len(order) <= IN_MEMORY and cache is None else _folder(cache) / catalogue.hash
        index = Index.kept((catalogue.by_asin[asin].contents for asin in order), folder, catalogue.hash)
        self.shop = Shop(catalogue, index, order, numbered, prices, self.tagger, attributes_page)
        said = f"seed {seed}" if isinstance(seed, int) else "a given generator state"
        self.provenance = (f"catalogue {catalogue.name}; {len(numbered)} {goals} goals, prices by {said}; "
                           f"tagger {self.tagger.name}")
        """What a score depends on: catalogue, goals, prices and tagger."""

    def with_judged_options(self) -> WebShop:
        """The same shop, in which selected options have their own judge (see `judge_options`); it shares all else."""
        shop = copy(self)
        shop.judge_options, shop.judges = True, OPTION_JUDGE
        return shop

    @property
    def goals(self) -> list[Goal]:
        """Every goal, in the published order; `fixed_3` is the fourth."""
        return self.shop.goals

    def task(self, text: str) -> Task:
        """The goal of that number ("3", "fixed_3"), or of that instruction. Raises TaskError for another."""
        number = text.strip().removeprefix("fixed_")
        if number.isascii() and number.isdecimal() and len(number) < 10:
            if int(number) >= len(self.goals):
                raise TaskError(f"no goal {number}: there are {len(self.goals)}, numbered from 0")
            return self._task(int(number))
        if (place := self._places.get(text)) is None:
            raise TaskError(f"{shown(text)} is no instruction of this shop; take one of env.tasks('test'), or a number "
                            f"below {len(self.goals)}")
        return self._task(place)

    def _task(self, place: int) -> Task:
        return Task(f"fixed_{place}", self.goals[place].text)

    @property
    def _places(self) -> dict[str, int]:
        found: dict[str, int] | None = self.__dict__.get("_places_by_text")
        if found is None:
            found = self.__dict__["_places_by_text"] = {
                goal.text: place for place, goal in reversed(list(enumerate(self.goals)))}
        return found

    def tasks(self, split: str) -> list[Task]:
        """"test", "validation" (the benchmark's eval) or "train": the published ranges of the full data, else two
        fifths, one fifth and two fifths of the goals."""
        if split not in PUBLISHED:
            raise TaskError(f"no split {split!r}; there are {', '.join(PUBLISHED)}")
        count = len(self.goals)
        first, second = count * 2 // 5, count * 3 // 5
        bounds = PUBLISHED if count >= LEAST_FOR_PUBLISHED else {
            "test": (0, first), "validation": (first, second), "train": (second, None)}
        return [self._task(place) for place in range(count)[slice(*bounds[split])]]

    # The shop as states

    def reset(self, task: Task) -> State:
        return self._state(Session(self._goal(task)), ())

    def _goal(self, task: Task) -> int:
        place = task.id.partition(" ")[0].removeprefix("fixed_")
        if not (place.isdecimal() and int(place) < len(self.goals) and self.goals[int(place)].text == task.text):
            raise TaskError(f"{shown(task.id)} is no task of this shop; take one of env.tasks('test')")
        return int(place)

    def _state(self, session: Session, history: tuple[str, ...]) -> State:
        page = self.shop.show(session, self.view, self.shown)
        known = (session.kind, session.keywords, session.number, session.asin, sorted(session.options), session.sub,
                 sorted(session.visited) if self.view == "text_rich" else [])
        return State(page, json.dumps(known), history, session.kind == "done", session)

    def step(self, state: State, action: Action) -> Transition:
        """The page after a click or a search; the same page for what is not possible on it."""
        if len(action.text) > LONGEST_ACTION:
            raise TaskError(f"an action of {len(action.text):,} characters; at most {LONGEST_ACTION}")
        session = self.shop.step(state.data, action.text)
        after = self._state(session, (*state.history, action.text))
        return Transition(after, terminated=after.terminal)

    def action(self, state: State, text: str) -> Action:
        """The action as the page names it; buying cannot be undone."""
        return named(text)

    def legal_actions(self, state: State) -> list[Action]:
        """What the page offers; on the first page two searches, for the instruction and for its first words."""
        session: Session = state.data
        if state.terminal:
            return []
        if session.kind == "index":
            return searches(self.goals[session.goal].text)
        found, chosen = [], dict(session.options)
        for text, node in self.shop.clickables_of(session).items():
            if (self.browse or text not in NAVIGATION) and chosen.get(node.option) != text:
                found.append(self.action(state, f"click[{text}]"))
        return found

    def choices(self, state: State) -> int | None:
        """How many actions the page offers; None where anything can be searched for."""
        return None if state.data.kind == "index" else len(self.legal_actions(state))

    def fields(self, situation: Situation) -> dict[str, Any]:
        if situation.state.data.kind == "index":
            return {**super().fields(situation), "possible_actions": [KEYWORDS]}
        return super().fields(situation)

    def page(self, situation: Situation) -> str | None:
        """`OPTION` where the last action selected an option, and those have their own judge."""
        if not self.judge_options:
            return None
        before = situation.before and situation.before.state.data
        here: Session = situation.state.data
        selected = before is not None and before.kind == here.kind == "item" and before.options != here.options
        return OPTION if selected and not situation.state.untaken else None

    # What came of it

    def answer(self, task: Task, state: State) -> str:
        """The purchase as JSON, "" where nothing was bought."""
        session: Session = state.data
        bought = session.kind == "done" or (state.untaken and session.asin)
        return json.dumps({"asin": session.asin, "options": dict(session.options)}) if bought else ""

    def reward(self, task: Task, answer: str) -> Reward:
        """The reward of a purchase and its parts, for evaluation only. Raises RewardSealed during a search."""
        self.check_sealed(task)
        goal = self.goals[self._goal(task)]
        nothing = Reward(0.0, 0.0, 0, 0, False)
        if not answer:
            return nothing
        bought = parsed(Purchase, parse_json(answer, "the answer is no purchase", TaskError),
                        "the answer is no purchase", TaskError)
        product = self.catalogue.by_asin.get(bought.asin)
        if product is None:
            raise TaskError(f"the answer buys {shown(bought.asin)}, which is not in the catalogue")
        return reward(product, bought.options, self.shop.prices[product.asin], goal, self.tagger)

    def _score(self, task: Task, answer: str) -> float:
        try:
            return self.reward(task, answer).total
        except TaskError:
            return 0.0


class Purchase(BaseModel):
    """What an answer says was bought."""

    model_config = ConfigDict(strict=True, extra="forbid")

    asin: str
    options: dict[str, str]


def named(text: str) -> Action:
    """The action that a policy's text names; buying cannot be undone. Raises TaskError for what is none."""
    name, argument = parse_action(text.strip())
    if name not in ("click", "search") or not argument:
        raise TaskError(f"{shown(text)} is neither search[keywords] nor click[what is on the page]")
    text = f"{name}[{argument.lower() if name == 'click' else argument}]"
    return Action(text, irreversible=name == "click" and argument.lower() == BUY.lower())


def searches(instruction: str) -> list[Action]:
    """Two searches that need no model: for the instruction without its price, and for its first words."""
    wanted = instruction.partition(", and price lower than")[0]
    return [Action(f"search[{query}]") for query in dict.fromkeys((wanted, " ".join(wanted.split()[:8])))]


def _tagger(tags: Any) -> Tagger:
    if isinstance(tags, str):
        kinds: dict[str, Literal["auto", "rules", "spacy"]] = {"auto": "auto", "rules": "rules", "spacy": "spacy"}
        if tags not in kinds:
            raise TaskError(f"tags={tags!r}: choose auto, rules or spacy, or give a Tagger")
        return tagger(kinds[tags])
    if not (isinstance(getattr(tags, "name", None), str) and callable(getattr(tags, "nouns", None))):
        raise TaskError(f"tags={shown(tags)} is no Tagger: it has no name, or no nouns(text)")
    found: Tagger = tags
    return found


def _folder(cache: str | Path | None) -> Path:
    if cache is not None:
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stl_programs" / "webshop"
