"""HotpotQA as a world to search: look up articles, and answer within four steps (paper, appendix E)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import dspy

from signatures.hotpotqa import LAST_STEP, SCALE, EstimateLookups, LookaheadLookups, ProposeLookups
from stl_programs.construct import Count, checked
from stl_programs.environments.base import Environment
from stl_programs.environments.hotpotqa import questions as files
from stl_programs.environments.hotpotqa.metrics import exact_match, f1
from stl_programs.environments.hotpotqa.questions import Question
from stl_programs.environments.hotpotqa.wiki import SENTENCES_SHOWN, Wiki
from stl_programs.errors import TaskError
from stl_programs.outside import shown
from stl_programs.records import Action, State, Task, Transition
from stl_programs.situations import Situation

START = "(nothing was looked up yet)"
NO_MORE = "No more results."
LONGEST_ACTION = 500
SPLITS = ("train", "validation", "test")
_ACTION = re.compile(r"\s*(search|lookup|finish)\[([^\n]*)\]\s*", re.IGNORECASE)
_WORD = re.compile(r"\w{4,}")
_NAME = re.compile(r"\b(?:[A-Z][\w'-]{2,}(?: [A-Z][\w'-]{2,}){0,3}|[12][0-9]{3})\b")


class Place(NamedTuple):
    """What a state knows of the way to it: the open page, and the cursor of its look-ups.

    `asked`: titles that the question names, or that are like it. `seen`: what was shown so far, oldest first.
    `similar`: titles that the last search named in place of a page.
    """

    asked: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    title: str = ""
    keyword: str = ""
    looked_up: int = 0
    similar: tuple[str, ...] = ()
    answer: str = ""


class HotpotQA(Environment):
    """Answer questions of two steps by `search[title]`, `lookup[word]` and `finish[answer]`.

    A search opens the page of that title and shows its first five sentences, or names five similar titles and leaves
    the open page. A look-up shows the next sentence with the word. The cursor belongs to the state, so that branches
    share nothing. With one step left only an answer is possible.

    Args:
        data: a file of the data set (with or without contexts); None is the embedded, fictional wiki.
        wiki: the encyclopedia; by default the pages of all contexts of `data`. A corpus file, or a LiveWiki.
        max_depth: steps, of which the last must be the answer.
        cache: the folder that keeps the index of many pages.

    Raises TaskError, in one line, for files that are missing, damaged, or hold no pages.

    Example:
        >>> env = HotpotQA()
        >>> task = env.tasks("test")[0]
        >>> env.step(env.reset(task), Action("search[Osprey Bay]")).state.text
        'Osprey Bay is a town in ...'
    """

    name = "hotpotqa"
    scale = SCALE
    policy_signature = ProposeLookups
    value_signature = EstimateLookups
    lookahead_signature = LookaheadLookups
    settings = ("provenance",)

    @checked
    def __init__(self, data: str | Path | None = None, *, wiki: Any = None, max_depth: Count = 4,
                 cache: str | Path | None = None):
        found, pages = files.read_questions(Path(data) if data else files.EMBEDDED)
        self._build(found, pages, wiki, max_depth, Path(cache) if cache else None,
                    Path(data).name if data else "embedded wiki")

    @classmethod
    def from_hub(cls, split: str = "validation", name: str = files.HUB, max_depth: int = 4) -> HotpotQA:
        """The world of a `datasets` repository, or of a folder that its `save_to_disk` wrote."""
        found, pages = files.from_hub(split, name)
        env = cls.__new__(cls)
        env._build(found, pages, None, max_depth, None, f"{name} {split}")
        return env

    def _build(self, found: list[Question], pages: dict[str, list[str]], wiki: Any, depth: int, cache: Path | None,
               source: str) -> None:
        if isinstance(wiki, (str, Path)):
            wiki = Wiki(files.read_pages(Path(wiki)), cache)
        elif wiki is None and not pages:
            raise TaskError(f"{source} has questions and no pages; give a corpus as well: HotpotQA(data, wiki=...)")
        self.wiki: Any = Wiki(pages, cache) if wiki is None else wiki
        self.questions = {question.id: question for question in found}
        if len(self.questions) < len(found):
            raise TaskError(f"{source} has an id twice among its {len(found)} questions; give each its own")
        self._by_text = {question.text: question.id for question in found}
        self.max_depth = depth
        self.pure = isinstance(self.wiki, Wiki)
        self.provenance = f"{source}, {len(found)} questions; wiki {self._wiki_name()}"
        """What a score depends on: questions and encyclopedia."""

    def _wiki_name(self) -> str:
        return f"{len(self.wiki.titles)} pages {self.wiki.digest}" if self.pure else str(self.wiki.name)

    def task(self, text: str) -> Task:
        """The question of that id, or of that wording. Raises TaskError for another."""
        known = text if text in self.questions else self._by_text.get(text)
        if known is None:
            raise TaskError(f"{shown(text)} is no question of this data; take one of env.tasks('test')")
        return Task(known, self.questions[known].text)

    def tasks(self, split: str) -> list[Task]:
        if split not in SPLITS:
            raise TaskError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return [Task(one.id, one.text) for one in files.split_of(list(self.questions.values()), split)]

    # Looking things up

    def reset(self, task: Task) -> State:
        question = self._question(task).text
        asked = (self.wiki.mentioned(question) or self.wiki.similar(question)) if self.pure else []
        return State(START, json.dumps([START]), data=Place(tuple(asked)))

    def _question(self, task: Task) -> Question:
        question = self.questions.get(task.id.partition(" ")[0]) or self.questions.get(task.id)
        if question is None:
            raise TaskError(f"{shown(task.id)} is no question of this data; take one of env.tasks('test')")
        return question

    def action(self, state: State, text: str) -> Action:
        kind, argument = _parts(text)
        return Action(f"{kind}[{argument}]")

    def step(self, state: State, action: Action) -> Transition:
        """What an action shows. Raises TaskError for what is no action, and for other than an answer at the end."""
        kind, argument = self._possible(state, action)
        found = self.wiki.page(argument) if kind == "search" else None
        similar = self.wiki.similar(argument) if kind == "search" and found is None else []
        page = self.wiki.page(state.data.title) if kind == "lookup" and state.data.title else None
        return self._after(state, kind, argument, found, similar, page)

    async def areset(self, task: Task) -> State:
        return self.reset(task)

    async def aclose(self) -> None:
        if not self.pure:
            await self.wiki.aclose()

    async def astep(self, state: State, action: Action) -> Transition:
        """The same over an encyclopedia that is asked over the network."""
        if self.pure:
            return self.step(state, action)
        kind, argument = self._possible(state, action)
        found = await self.wiki.apage(argument) if kind == "search" else None
        similar = await self.wiki.asimilar(argument) if kind == "search" and found is None else []
        page = await self.wiki.apage(state.data.title) if kind == "lookup" and state.data.title else None
        return self._after(state, kind, argument, found, similar, page)

    def _possible(self, state: State, action: Action) -> tuple[str, str]:
        kind, argument = _parts(action.text)
        if state.terminal:
            raise TaskError(f"{shown(action.text)}: the question is answered; nothing more is possible")
        if kind != "finish" and self._left(state) <= 1:
            raise TaskError(f"{shown(action.text)} is not possible: one step is left, and it must be finish[answer]")
        return kind, argument

    def _left(self, state: State) -> int:
        return self.max_depth - len(state.history)

    def _after(self, state: State, kind: str, argument: str, found: tuple[str, tuple[str, ...]] | None,
               similar: list[str], page: tuple[str, tuple[str, ...]] | None) -> Transition:
        here: Place = state.data
        if kind == "finish":
            text, after = f"Answered: {argument}", here._replace(answer=argument)
        elif kind == "search" and found is not None:
            text = " ".join(found[1][:SENTENCES_SHOWN]) or f"The page {found[0]} is empty."
            after = Place(here.asked, title=found[0])
        elif kind == "search":
            text, after = f"Could not find {argument}. Similar: {similar}.", here._replace(similar=tuple(similar))
        else:
            text, after = _look_up(here, argument, page[1] if page else ())
        seen = (*here.seen, text)
        after = after._replace(seen=seen)
        key = json.dumps([*seen, after.title, after.keyword, after.looked_up])
        done = State(text, key, (*state.history, f"{kind}[{argument}]"), kind == "finish", after)
        return Transition(done, terminated=done.terminal)

    def legal_actions(self, state: State) -> list[Action]:
        """Some of what can be done, without a model: open pages that were mentioned or are similar, look up the last
        word once more, answer with a name or a year that was seen, or yes or no."""
        here: Place = state.data
        if state.terminal or not self.pure:
            return [] if state.terminal else super().legal_actions(state)
        names = [name for text in here.seen for name in _NAME.findall(text)]
        answers = [f"finish[{text}]" for text in dict.fromkeys(("yes", "no", *here.asked, *names))]
        if self._left(state) <= 1:
            return [Action(text) for text in answers]
        return [Action(text) for text in dict.fromkeys([*self.suggestions(state), *answers])
                if text not in state.history or text.startswith("lookup")]

    @property
    def listable(self) -> bool:
        return self.pure

    def suggestions(self, state: State) -> list[str]:
        """Searches and look-ups that the state itself suggests: similar titles, titles on the page, words after it."""
        here: Place = state.data
        if state.terminal or self._left(state) <= 1:
            return []
        titles = [*here.similar, *(self.wiki.mentioned(" ".join(here.seen)) if self.pure else []), *here.asked]
        found = [f"search[{title}]" for title in dict.fromkeys(titles) if title != here.title]
        if here.title and here.keyword:
            found.append(f"lookup[{here.keyword}]")
        return found

    def fields(self, situation: Situation) -> dict[str, Any]:
        state = situation.state
        left = self._left(state)
        return {**super().fields(situation),
                "steps_left": LAST_STEP if left <= 1 else f"{left} steps are left.",
                "possible_next_actions": lambda: self._next(situation)}

    def _next(self, situation: Situation) -> list[str]:
        """What a value is told can be done next: searches that suggest themselves, and words of the question."""
        state = situation.state
        if state.terminal:
            return []
        if self._left(state) <= 1:
            return ["finish[answer]"]
        words = [word for word in _WORD.findall(situation.task.text) if word[0].islower()]
        lookups = [f"lookup[{word}]" for word in words[:3]] if state.data.title else []
        return [*dict.fromkeys([*self.suggestions(state)[:8], *lookups]), "finish[answer]"]

    # What came of it

    def answer(self, task: Task, state: State) -> str:
        return str(state.data.answer)

    def _score(self, task: Task, answer: str) -> float:
        """Exact match, as the data set normalises answers."""
        return float(bool(answer) and exact_match(answer, self._question(task).answer))

    def f1(self, task: Task, answer: str) -> float:
        """The words that answer and right answer share. Raises RewardSealed during a search."""
        self.check_sealed(task)
        return f1(answer, self._question(task).answer)

    def to_judge(self, task: Task, answer: str) -> dict[str, str]:
        """The inputs of `signatures.hotpotqa.JudgeAnswer`. Raises RewardSealed during a search."""
        self.check_sealed(task)
        return {"question": task.text, "reference": self._question(task).answer, "answer": answer}

    def record(self, transition: Transition) -> dict[str, Any]:
        return super().record(transition) | {"data": list(transition.state.data)}

    def restore(self, history: tuple[str, ...], row: dict[str, Any]) -> Transition:
        asked, seen, title, keyword, looked_up, similar, answer = row["data"]
        place = Place(tuple(asked), tuple(seen), title, keyword, looked_up, tuple(similar), answer)
        return super().restore(history, {**row, "data": place})


def verdict(prediction: dspy.Prediction) -> bool | None:
    """Whether a judge called an answer right; None where it said neither yes nor no."""
    word = str(prediction.verdict).strip().strip(".!*\"'").lower()
    return {"yes": True, "no": False}.get(word)


def _parts(text: str) -> tuple[str, str]:
    match = _ACTION.fullmatch(text) if len(text) <= LONGEST_ACTION else None
    argument = match[2].strip() if match else ""
    if match is None or not argument:
        raise TaskError(f"{shown(text)} is no action; write search[title], lookup[word] or finish[answer]")
    return match[1].lower(), argument


def _look_up(here: Place, word: str, sentences: tuple[str, ...]) -> tuple[str, Place]:
    """The next sentence of the page that has the word; another word begins anew."""
    with_word = [sentence for sentence in sentences if word.lower() in sentence.lower()]
    number = here.looked_up if here.keyword == word.lower() else 0
    after = here._replace(keyword=word.lower(), looked_up=number + 1 if number < len(with_word) else number)
    if number >= len(with_word):
        return NO_MORE, after
    return f"(Result {number + 1} / {len(with_word)}) {with_word[number]}", after
