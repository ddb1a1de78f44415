"""The chat format in which the authors of Self-Taught Lookahead released their training rows (paper, figure 11).

A file is a JSON array of [human, gpt] pairs. The human turn has an instruction, the trajectory with what was observed,
`Current Action:`, `Current Observation:` and, in HotpotQA, `Possible Next Actions:`; the other turn is a lookahead, or
the judgement of a terminal state, and ends in `Thus the correctness score is 6.67 / 10.00.`
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspy
from pydantic import BaseModel, ConfigDict, Field, RootModel

from optimizers.data.lookahead import LookaheadExample
from optimizers.data.rows import Dataset, rows_hash
from signatures import NO_ACTION, Lookahead, signature_version
from stl_programs.errors import StlError
from stl_programs.models.formats import LookaheadFormat
from stl_programs.outside import parse_json, parsed, shown, write_atomically
from stl_programs.secrets import as_json
from stl_programs.tree import Node, Tree

LEAST, MOST = 1.0, 10.0
"""Labels of a sound row."""
LARGEST = 500_000_000
"""Bytes of a file that is read."""
_INSTRUCTION = ("Say what the current state is worth, from 1 to 10.\nName the best next action and what it will show, "
                "reflect on that successor, and derive the score of the current state from it.")
_TERMINAL = ("Say what the terminal state is worth, from 1 to 10.\nReflect on it, and derive its score.")
_STEP, _CURRENT = "\nAction: ", "\nCurrent Action: "
_SEEN, _NEXT = "\nCurrent Observation: ", "\nPossible Next Actions: "
_SCORE = re.compile(r"\AThus the correctness score is (-?[0-9]{1,6}(?:\.[0-9]{1,6})?) / 10\.00\.?\Z")
_PHRASE = re.compile(r"\bthus,? the correctness score\b", re.IGNORECASE)
_DANGLING = re.compile(r"\bthus[,:]?\s*\Z", re.IGNORECASE)
_FORMAT = LookaheadFormat()


@dataclass(frozen=True)
class ReleasedRow:
    """One row. `opening`: the task and the first observation; `steps`: actions and observations before the current
    ones; `best_action` and `next_state` are "none" of a terminal state; `score` is on the scale from 1 to 10."""

    opening: str
    steps: tuple[tuple[str, str], ...]
    action: str
    observation: str
    possible: tuple[str, ...]
    best_action: str
    next_state: str
    rationale: str
    score: float
    instruction: str = ""

    @property
    def terminal(self) -> bool:
        return self.best_action == NO_ACTION

    def pair(self) -> list[dict[str, str]]:
        """The row as the file holds it. Raises StlError for texts that would not be read back as they are."""
        said = _FORMAT.format_assistant_message_content(Lookahead, {
            "best_action": self.best_action, "next_state": self.next_state, "rationale": self.rationale,
            "score": f"{self.score:.2f} / 10.00"})
        head = self.instruction or (_TERMINAL if self.terminal else _INSTRUCTION)
        past = "".join(f"{_STEP}{action}\nObservation: {seen}" for action, seen in self.steps)
        following = _NEXT + "\n".join(self.possible) if self.possible else ""
        asked = f"{head}\nTrajectory: {self.opening}{past}{_CURRENT}{self.action}{_SEEN}{self.observation}{following}"
        pair = [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
        found = _row(_Pair.model_validate(pair).root)
        if found[0] is None or _plain(found[0]) != _plain(self):
            raise StlError(f"the row of {shown(self.action)} cannot be said in the released format: "
                           f"{found[1] or 'a text holds one of its headings'}")
        return pair


@dataclass
class Released:
    """The rows of a file that are sound, and the number and defect of each that is not, counted from 0."""

    rows: list[ReleasedRow] = field(default_factory=list)
    defects: list[tuple[int, str]] = field(default_factory=list)

    @property
    def counted(self) -> Counter[str]:
        """How many rows have each kind of defect."""
        return Counter(why.partition(":")[0] for _, why in self.defects)

    def dataset(self, limit: int | None = None) -> Dataset:
        """The sound rows, or the first `limit` of them, for a training: one message asked, one said.

        Raises StlError where there is none.
        """
        chosen = self.rows[:limit]
        if not chosen:
            raise StlError(f"no sound row to train on; {len(self.defects)} with defects")
        rows = [{"prompt": [{"role": "user", "content": asked["value"]}],
                 "completion": [{"role": "assistant", "content": said["value"]}]}
                for asked, said in (row.pair() for row in chosen)]
        return Dataset([], rows, [], {
            "rows": len(rows), "defects": dict(self.counted), "format": "lookahead", "variant": "lv+tr+r",
            "signature": signature_version(Lookahead), "sha256": rows_hash(rows)})


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    speaker: str = Field(alias="from")
    value: str


class _Pair(RootModel[list[_Turn]]):
    pass


class _File(RootModel[list[Any]]):
    pass


def read_released(path: str | Path) -> Released:
    """The rows of a released file. Raises StlError for a file that is none: missing, cut short, or no JSON array.

    Example:
        >>> released = read_released("depth=1.jsonl")
        >>> len(released.rows), released.counted
        (235, Counter())
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise StlError(f"{path}: {path.stat().st_size:,} bytes; at most {LARGEST:,} are read")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StlError(f"{path}: cannot be read ({type(error).__name__}); name a released file") from None
    what = f"{path.name} is no released file: a JSON array of [human, gpt] pairs"
    released = Released()
    for number, item in enumerate(parsed(_File, parse_json(text, what, StlError), what, StlError).root):
        try:
            row, why = _row(parsed(_Pair, item, "no pair", StlError).root)
        except StlError as error:
            row, why = None, str(error)
        if row is None:
            released.defects.append((number, why))
        else:
            released.rows.append(row)
    return released


def write_released(path: str | Path, rows: Iterable[ReleasedRow]) -> None:
    """A file of rows, as `read_released` reads it."""
    text = ",\n".join(as_json(row.pair()) for row in rows)
    write_atomically(Path(path), [b"[", text.encode(), b"]\n"], "the rows")


def released_rows(examples: Iterable[LookaheadExample], trees: Iterable[Tree], *, top: float = MOST
                  ) -> tuple[list[ReleasedRow], Counter[str]]:
    """Lookahead examples of a rollout as released rows, with what was observed on the way from their trees.

    Args:
        top: the best score of the world's scale; labels are scaled from it to 10.

    Returns the rows and how many examples gave none, by reason: the root has no action that led to it, a few texts
    hold a heading of the format.
    """
    nodes: dict[tuple[str, str, int], tuple[Tree, Node]] = {}
    for tree in trees:
        for node in tree.nodes:
            nodes.setdefault((tree.task.id, node.state.key, node.depth), (tree, node))
    found, dropped = list[ReleasedRow](), Counter[str]()
    for example in examples:
        tree, node = nodes[example.task, example.key, example.depth]
        path = tree.path(node)
        if len(path) < 2:
            dropped["the first state: no action led to it"] += 1
            continue
        opening = path[0].state.text
        if tree.task.text not in opening:
            opening = f"Question: {tree.task.text}\n{opening}"
        steps = tuple((one.action or "", one.observation.strip()) for one in path[1:])
        possible = tuple(example.inputs.get("possible_next_actions", ()))
        row = ReleasedRow(opening, steps[:-1], *steps[-1], possible, example.action, example.next_state.strip(),
                          example.rationale.strip(), example.target * MOST / top)
        try:
            row.pair()
        except StlError as error:
            dropped[str(error)] += 1
        else:
            found.append(row)
    return found, dropped


def _row(turns: Sequence[_Turn]) -> tuple[ReleasedRow | None, str]:
    """The row that two turns hold, or why they hold none."""
    if [turn.speaker for turn in turns] != ["human", "gpt"]:
        return None, f"no pair: turns of {', '.join(turn.speaker for turn in turns) or 'nobody'}, not of human and gpt"
    asked, said = (turn.value for turn in turns)
    head, _, rest = asked.partition("\nTrajectory:")
    past, current, now = rest.partition(_CURRENT)
    action, seen, observation = now.partition(_SEEN.rstrip())
    if not (current and seen and action.strip()) or _CURRENT in observation:
        return None, "not asked in the format: Trajectory, Current Action and Current Observation, each once"
    observation, _, possible = observation.partition(_NEXT.rstrip())
    opening, *steps = past.split(_STEP)
    if len(_PHRASE.findall(said)) != 1:
        return None, f"score phrase: it stands {len(_PHRASE.findall(said))} times; once is right"
    body, _, _ = said.rpartition("\n")
    score = _SCORE.match(said[len(body):].strip())
    if score is None:
        return None, f"score: {shown(said[len(body):].strip())} is no score out of 10"
    if _DANGLING.search(body):
        return None, "dangling Thus: the reflection ends in it"
    label = float(score[1])
    if not LEAST <= label <= MOST:
        return None, f"label: {score[1]} is not from {LEAST:g} to {MOST:g}"
    try:
        fields = _FORMAT.parse(Lookahead, said)
    except dspy.utils.exceptions.AdapterParseError:
        return None, "not answered in the format: its sentences are missing, or one is empty"
    return ReleasedRow(
        opening.removeprefix(" "), tuple(_step(text) for text in steps), action.strip(),
        observation.removeprefix(" "), tuple(possible.strip().splitlines()), fields["best_action"],
        fields["next_state"], fields["rationale"], label, head), ""


def _step(text: str) -> tuple[str, str]:
    action, _, observation = text.partition("\nObservation:")
    return action.strip(), observation.removeprefix(" ")


def _plain(row: ReleasedRow) -> tuple[Any, ...]:
    """What has to survive; white space around texts does not."""
    steps = tuple((action.strip(), seen.strip()) for action, seen in row.steps)
    return (row.opening.strip(), steps, row.action.strip(), row.observation.strip(), row.possible, row.best_action,
            row.next_state.strip(), row.rationale.strip(), round(row.score, 2))
