"""A shop behind HTTP: free text, pages judged each in their own way, and one action that cannot be undone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import dspy

from signatures import EstimateValue, LabelScale, Lookahead, NumberScale, ProposeActions
from stl_programs import Environment, Judge, run_sync
from stl_programs.errors import StlError, TaskError, TransientError
from stl_programs.records import Action, State, Task, Transition
from stl_programs.situations import Situation
from tests.stl_programs.environments.own_worlds.prompts import chat, inputs, lookahead, wants
from tests.stl_programs.environments.own_worlds.shop_server import ITEMS


class ProposeClicks(ProposeActions):
    """Propose distinct next actions in the shop, most promising first."""

    possible_actions: list[str] = dspy.InputField(desc="what the page offers")


class JudgePage(EstimateValue):
    """Judge how close the shopper is to the right purchase."""

    observations: str = dspy.InputField(desc="the pages before, oldest first")
    last_action: str = dspy.InputField()
    possible_actions: list[str] = dspy.InputField()


class LookFromPage(Lookahead):
    """Judge the page by one step of lookahead."""

    observations: str = dspy.InputField(desc="the pages before, oldest first")
    last_action: str = dspy.InputField()
    possible_actions: list[str] = dspy.InputField()


class JudgeItem(dspy.Signature):
    """Say how much nearer this item brings the shopper: nearer, same or farther."""

    task: str = dspy.InputField()
    item: str = dspy.InputField(desc="the item's first line")
    rationale: str = dspy.OutputField()
    score: str = dspy.OutputField(desc="nearer, same or farther")


class LookFromItem(JudgeItem):
    """Say what to do with this item, and how much nearer it brings the shopper."""

    best_action: str = dspy.OutputField()
    next_state: str = dspy.OutputField()


CHANGE = LabelScale((("nearer", 2.0), ("same", 0.0), ("farther", -4.0)))


class Shop(Environment):
    """Find the item and buy it. A step begins a session of its own and goes the whole way again."""

    name, max_depth, scale, pure = "shop", 5, NumberScale(1, 10), False
    policy_signature, value_signature, lookahead_signature = ProposeClicks, JudgePage, LookFromPage
    judges: Mapping[str, Judge] = {"item": Judge(JudgeItem, LookFromItem, CHANGE, offset=True)}

    def __init__(self, url: str):
        self.url = url
        self._client: aiohttp.ClientSession | None = None

    def task(self, text: str) -> Task:
        if not re.fullmatch(r"Buy a \w+ [\w ]+ under \d+ dollars", text):
            raise TaskError(f"{text!r} is no order: write 'Buy a red mug under 15 dollars'")
        return Task(text, text)

    def tasks(self, split: str) -> list[Task]:
        return [self.task(f"Buy a {what} dollars") for what in (
            "red desk lamp under 20", "blue mug under 10", "red mug under 15", "red floor lamp under 60")]

    async def areset(self, task: Task) -> State:
        page = await self._post("/new")
        return State(page["text"], "", data=page)

    async def astep(self, state: State, action: Action) -> Transition:
        session = (await self._post("/new"))["session"]
        for text in (*state.history, action.text):
            page = await self._post("/act", session=session, action=text)
        after = state.then(action.text, page["text"], f"{state.key}/{action.text}", terminal=page["done"], data=page)
        return Transition(after, after.terminal)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _post(self, path: str, **body: Any) -> dict[str, Any]:
        if self._client is None:
            self._client = aiohttp.ClientSession()
        async with self._client.post(self.url + path, json=body) as response:
            page: dict[str, Any] = await response.json(content_type=None)
        if response.status == 503:
            raise TransientError(f"the shop is busy: {page['error']}")
        if response.status == 400:
            raise TaskError(page["error"])
        if response.status != 200:
            raise StlError(f"the shop answers {response.status}: {page}")
        return page

    def reset(self, task: Task) -> State:
        return run_sync(self.areset(task))

    def step(self, state: State, action: Action) -> Transition:
        return run_sync(self.astep(state, action))

    def action(self, state: State, text: str) -> Action:
        if (text := text.strip()) != "buy[]":
            return Action(text)
        if text not in state.data["actions"]:  # nobody will step there to find out
            raise TaskError("'buy[]' is not possible here: click an item first")
        return Action(text, irreversible=True)

    def fields(self, situation: Situation) -> dict[str, Any]:
        page = situation.state.data
        return {**super().fields(situation), "possible_actions": page["actions"],
                "item": lambda: page["text"].partition(".")[0]}

    def page(self, situation: Situation) -> str | None:
        return "item" if situation.state.data["kind"] == "item" else None

    def answer(self, task: Task, state: State) -> str:
        return " ".join(state.history)

    def _score(self, task: Task, answer: str) -> float:
        clicked = re.findall(r"click\[(\w+)\]", answer)
        return float("buy[]" in answer and bool(clicked) and fits(task.text, *ITEMS[clicked[-1]]))


def fits(order: str, title: str, price: int) -> bool:
    what, most = re.findall(r"Buy a (.*) under (\d+)", order)[0]
    return what == title and price <= int(most)


def reply(messages, seed: int) -> str:
    """Searches for the words of the order, clicks what is listed, and judges by them."""
    asked = inputs(messages)
    [(what, most)] = re.findall(r"Buy a (.*) under (\d+)", asked["task"])
    if wants(messages, "actions"):
        state = asked["state"]
        if state.startswith("Results"):
            found = dict(re.findall(r"^(B\d): (.*?),", state, re.M))
            nearest = sorted(found, key=lambda name: -len(set(what.split()) & set(found[name].split())))
            return chat(actions=["click[nothing]", *(f"click[{name}]" for name in nearest)])
        if state.startswith("Item"):
            return chat(actions=["buy[]", "back[]"])
        return chat(actions=[f"search[{what}]", f"search[{what.split()[-1]}]", "buy[]"])
    if "item" in asked:
        found = re.fullmatch(r"Item \w+: (.*), (\d+) dollars", asked["item"])
        near = bool(found) and found[1] == what and int(found[2]) <= int(most)
        return lookahead(messages, rationale="It was held against the order.", score="nearer" if near else "farther")
    score = {"The": 3, "Res": 5}.get(asked["state"][:3], 2)
    return lookahead(messages, rationale=f"{len(asked['observations'].splitlines())} pages seen.", score=f"{score}")
