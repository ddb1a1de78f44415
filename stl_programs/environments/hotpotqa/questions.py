"""Questions and their articles, from the files of the data set, of its copies, or our own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from stl_programs.errors import TaskError
from stl_programs.extras import need
from stl_programs.outside import parsed, read_json, shown

LARGEST = 2**31
"""Bytes of a file; the whole training set has 0.6 GB."""
EMBEDDED = Path(__file__).parent / "embedded" / "wiki.json"
"""A fictional wiki of our own making; experiments/hotpotqa/make_wiki.py writes it."""
DEV_QUESTIONS, ORDER_SEED, EVALUATED = 7405, 233, 500
HUB, HUB_NAME = "hotpotqa/hotpot_qa", "distractor"
Paragraphs = list[tuple[str, list[str]]]


class Question(NamedTuple):
    """`split` is "" where the file has none."""

    id: str
    text: str
    answer: str
    kind: str = ""
    split: str = ""


def _paragraphs(context: Any) -> Any:
    """Both forms of a context: pairs of title and sentences, and two lists of them."""
    if isinstance(context, dict) and set(context) == {"title", "sentences"}:
        titles, sentences = context["title"], context["sentences"]
        if isinstance(titles, (list, tuple)) and isinstance(sentences, (list, tuple)) and len(titles) == len(sentences):
            return list(zip(titles, sentences, strict=True))
    if isinstance(context, list):
        return [tuple(pair) if isinstance(pair, list) else pair for pair in context]
    return context


class Row(BaseModel):
    """A question of a file; what is not read is not named."""

    model_config = ConfigDict(strict=True, populate_by_name=True)

    question: Annotated[str, Field(min_length=1)]
    answer: str
    id: Annotated[str | None, Field(alias="_id")] = None
    type: str = ""
    split: str = ""
    context: Annotated[Paragraphs, BeforeValidator(_paragraphs)] = []


def read_questions(path: Path) -> tuple[list[Question], dict[str, list[str]]]:
    """The questions of a file, and the pages of their contexts (or of a `pages` beside them).

    Raises TaskError, in one line, for a file that is missing, cut off, or of another form.
    """
    what = "a file of HotpotQA questions"
    found = read_json(Path(path), LARGEST, what, TaskError)
    pages: dict[str, list[str]] = {}
    if isinstance(found, dict) and set(found) == {"pages", "questions"}:
        pages = _pages(found["pages"], path)
        found = found["questions"]
    if not isinstance(found, list) or not found:
        raise TaskError(f"{path} is not {what}: it is {shown(found)}, not a list of questions; give such a file")
    return rows_of(found, f"{path} is not {what}", pages)


def rows_of(rows: Iterable[Any], label: str, pages: Mapping[str, list[str]] | None = None
            ) -> tuple[list[Question], dict[str, list[str]]]:
    """Rows of a file or of a `datasets` table as questions and pages."""
    questions, found = [], dict(pages or {})
    for place, entry in enumerate(rows):
        if isinstance(entry, dict) and "id" in entry and "_id" not in entry:
            entry = {**entry, "_id": entry["id"]}
        row = parsed(Row, entry, f"{label}: question {place}", TaskError)
        questions.append(Question(row.id or f"q{place}", row.question, row.answer, row.type, row.split))
        for title, sentences in row.context:
            found.setdefault(title, sentences)
    return questions, found


def read_pages(path: Path) -> dict[str, list[str]]:
    """The sentences of pages by title, from a corpus file: an object of lists. Raises TaskError for another."""
    return _pages(read_json(Path(path), LARGEST, "a corpus of pages", TaskError), path)


def _pages(found: Any, path: Path) -> dict[str, list[str]]:
    class Corpus(BaseModel):
        model_config = ConfigDict(strict=True)
        pages: dict[str, list[str]]

    return parsed(Corpus, {"pages": found}, f"{path} is not a corpus of pages", TaskError).pages


def from_hub(split: str = "validation", name: str = HUB, config: str = HUB_NAME
             ) -> tuple[list[Question], dict[str, list[str]]]:
    """The questions and pages of a `datasets` repository, or of a folder that `save_to_disk` wrote."""
    need("HotpotQA.from_hub", "datasets", error=TaskError)
    import datasets

    found = datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name, config, split=split)
    return rows_of(found, f"{name} is no HotpotQA data set")


def published_order(count: int = DEV_QUESTIONS) -> list[int]:
    """The order in which published agents take the development questions; of it the first 500 are evaluated."""
    order = list(range(count))
    random.Random(ORDER_SEED).shuffle(order)
    return order


def split_of(questions: Sequence[Question], split: str) -> list[Question]:
    """The questions of a split: as the file says; of the whole development set the published 500 are "test"; of
    another file two fifths, one fifth and two fifths."""
    if any(question.split for question in questions):
        return [question for question in questions if question.split == split]
    if len(questions) == DEV_QUESTIONS:
        order = published_order()
        bounds = {"test": (0, EVALUATED), "validation": (EVALUATED, 2 * EVALUATED), "train": (2 * EVALUATED, None)}
        return [questions[place] for place in order[slice(*bounds[split])]]
    first, second = len(questions) * 2 // 5, len(questions) * 3 // 5
    shares = {"test": (0, first), "validation": (first, second), "train": (second, None)}
    return list(questions[slice(*shares[split])])
