"""A client as published agents have it: it knows addresses and visible text, and nothing of our code.

Written from the recorded observations of such a client, with the library those clients parse pages by.
"""

from __future__ import annotations

import urllib.parse
import urllib.request

from bs4 import BeautifulSoup
from bs4.element import Comment

HIDDEN = {"style", "script", "head", "title", "meta", "[document]"}


class Client:
    """One session: `act` takes an action and gives observation, reward and whether the score is full."""

    def __init__(self, base: str, name: str):
        self.base, self.name = base, name
        self.state: dict = {"page_type": "init"}

    def act(self, action: str) -> tuple[str, float, bool]:
        state = self.state
        if action == "reset":
            self.state = {"page_type": "init"}
        elif action.startswith("search["):
            assert state["page_type"] == "init"
            self.state = {"page_type": "search", "query": action[7:-1], "page": 1}
        elif action.startswith("click["):
            chosen = self._click(action[6:-1])
            if chosen is not None:
                return chosen, 0.0, False
        return self._look()

    def _click(self, thing: str) -> str | None:
        state = self.state
        if thing == "Buy Now":
            assert state["page_type"] == "item"
            state["page_type"] = "end"
        elif thing == "Back to Search":
            self.state = {"page_type": "init"}
        elif thing in ("Next >", "< Prev") and state["page_type"] == "search":
            state["page"] += 1 if thing == "Next >" else -1
        elif thing == "< Prev" and state["page_type"] == "item_sub":
            state["page_type"] = "item"
        elif thing == "< Prev":
            state.update(page_type="search", options={})
        elif thing in ("Description", "Features", "Reviews"):
            state.update(page_type="item_sub", subpage=thing)
        elif thing in state.get("asins", []):
            state.update(page_type="item", asin=thing, options={})
        else:
            state["options"] = {**state.get("options", {}), state["option_types"][thing]: thing}
            return f"You have clicked {thing}."
        return None

    def _address(self) -> str:
        state = self.state
        options = state.get("options", {})
        parts = {"init": [], "search": ["query", "page"], "item": ["asin", "query", "page"],
                 "item_sub": ["asin", "query", "page", "subpage"], "end": ["asin"]}[state["page_type"]]
        kind = {"init": "", "search": "search_results/", "item": "item_page/", "item_sub": "item_sub_page/",
                "end": "done/"}[state["page_type"]]
        path = "/".join([f"{kind}{self.name}", *(str(state[part]) for part in parts)])
        return path + (f"/{options}" if state["page_type"] in ("item", "item_sub", "end") else "")

    def _look(self) -> tuple[str, float, bool]:
        url = self._address()
        with urllib.request.urlopen(f"{self.base}/{urllib.parse.quote(url)}") as reply:
            page = BeautifulSoup(reply.read().decode(), "html.parser")
        texts = [text for text in page.find_all(string=True)
                 if text.parent.name not in HIDDEN and not isinstance(text, Comment) and text.strip()]
        score = [texts[i + 1] for i, text in enumerate(texts) if text == "Your score (min 0.0, max 1.0)"]
        if score:
            return f"Your score (min 0.0, max 1.0): {score[0]}", float(score[0]), float(score[0]) == 1.0
        seen, plain, products, types, asins, last = "", 0, 0, {}, [], 0
        heading = ""
        for text in texts:
            if text.parent.name == "button":
                seen += f"\n[{text}] "
            elif text.parent.name == "label":
                seen += f"[[{text}]]" if f"'{text}'" in url else f"[{text}]"
                types[str(text)] = heading
            elif text.parent.get("class") == ["product-link"]:
                products, last = products + 1, 0
                asins.append(str(text))
                seen += f"\n[{text}] "
            else:
                hidden = (plain < 2 and self.state["page_type"] != "init") or (last <= 2 and products >= 4)
                seen += "" if hidden else f"\n{text} "
                heading, plain = str(text), plain + 1
            last += 1
        self.state.update({"option_types": types} if types else {}, **({"asins": asins} if asins else {}))
        return seen, 0.0, False
