"""Named fakes that read what they are asked about: a shopper and a reference librarian who count words.

They stand where a language model would have to be downloaded. Their judgements depend on the inputs and on the seed of
the draw, and not on weights: nothing that is tuned makes them better.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from signatures import NO_ACTION
from stl_programs.testing.answering import answering

_WORD = re.compile(r"[a-z0-9]+")
_BUTTON = re.compile(r"\[([^\[\]\n]+)\]")
_PLAIN = frozenset(re.findall(r"\w+", "a an and are by for from i in is it need of on or the to want was which with"))


def shopper(inputs: dict[str, str], seed: int, of_option: bool = False) -> dict[str, Any]:
    """A fake for every signature of WebShop: a page is worth the share of the instruction's words that it shows, a
    selected option (`of_option`) whether the instruction has its words."""
    wanted = _words(inputs["task"].partition(", and price")[0])
    share = _share(wanted, _words(inputs["state"]))
    buttons = [f"click[{text.lower()}]" for text in _BUTTON.findall(inputs["state"])]
    best = max(buttons, key=lambda text: len(_words(text) & wanted), default=NO_ACTION)
    possible = _listed(inputs.get("possible_actions", "[]"))
    ranked = sorted(possible, key=lambda text: -len(_words(text) & wanted))
    searches = [f"search[{' '.join(sorted(wanted)[:count])}]" for count in (12, 4)]
    asked = _words(inputs.get("last_action", "").removeprefix("click")) <= wanted
    return {"actions": searches if possible == ["search[<keywords>]"] else ranked,
            "rationale": f"{len(wanted)} words are wanted, {share:.0%} of them are on the page.", "best_action": best,
            "next_state": NO_ACTION if best == NO_ACTION else "the page that it leads to",
            "score": ("3" if asked else "2") if of_option else _drawn(share, inputs["state"], seed)}


def shop_script(messages: list[dict[str, Any]], model: str, seed: int) -> Any:
    """`shopper` for a `Simulator`."""
    of_option = any("one of 1, 2, 3, 4" in message["content"] for message in messages)
    return answering(lambda inputs, seed: shopper(inputs, seed, of_option))(messages, seed)


def wiki_script(messages: list[dict[str, Any]], model: str, seed: int) -> Any:
    """`librarian` for a `Simulator`."""
    return answering(librarian)(messages, seed)


def librarian(inputs: dict[str, str], seed: int) -> dict[str, Any]:
    """A fake for every signature of HotpotQA but the judge's: the share of the question's words that were seen."""
    seen = " ".join((inputs.get("observations", ""), inputs["state"]))
    share = _share(_words(inputs["task"]), _words(seen))
    names = re.findall(r"[A-Z][\w'-]+(?: [A-Z][\w'-]+)*", f"{inputs['task']} {inputs['state']}")
    found = list(dict.fromkeys(name for name in names if name.lower() not in _PLAIN))
    verb = "finish" if "last step" in inputs.get("steps_left", "") else "search"
    actions = [f"{verb}[{name}]" for name in found[:8]] or [f"{verb}[unknown]"]
    return {"actions": actions, "rationale": f"{share:.0%} of the question's words were seen.",
            "best_action": actions[0], "next_state": "what it will show", "score": _drawn(share, seen, seed)}


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if word not in _PLAIN}


def _share(wanted: set[str], seen: set[str]) -> float:
    return len(wanted & seen) / len(wanted) if wanted else 0.0


def _drawn(share: float, about: str, seed: int) -> str:
    """From 1 to 10, with the noise of a draw."""
    noise = random.Random(f"{seed}/{about}").uniform(-0.4, 0.4)
    return f"{min(max(1 + 9 * share + noise, 1.0), 10.0):.2f}"


def _listed(text: str) -> list[str]:
    found = json.loads(text)
    return [str(one) for one in found] if isinstance(found, list) else []
