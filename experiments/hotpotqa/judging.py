"""Answers of HotpotQA held against the right one by a language model, after the search (paper, section 5.2)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from signatures.hotpotqa import JudgeAnswer
from stl_programs import HotpotQA, engine
from stl_programs.costs import Bill, bills_of
from stl_programs.environments.hotpotqa.world import verdict
from stl_programs.errors import ModelError, StlError
from stl_programs.outside import parse_json, parsed
from stl_programs.predictor import Predictor
from stl_programs.records import Task, TaskResult
from stl_programs.secrets import as_json


class _Row(BaseModel):
    """`said`: None where the judge said neither yes nor no."""

    model_config = ConfigDict(strict=True, extra="forbid")

    judge: str
    task: str
    answer: str
    said: bool | None
    usage: dict[str, dict[str, int | float | None]]


class JudgedHotpotQA(HotpotQA):
    """The same questions and pages, scored with a judge: an answer counts where it matches exactly or is judged right.

    The judge is asked once for a question and an answer, what it said is kept in `journal`, and a verdict that says
    neither yes nor no is no match and counted (`said`).

    Args:
        world: whose questions and pages. judge: a model string, or a Model. journal: a JSON Lines file.
    """

    def __init__(self, world: HotpotQA, judge: Any, journal: Path):
        vars(self).update(vars(world))
        self.judge = Predictor(JudgeAnswer, judge, role="judge", temperature=0.0, max_tokens=512)
        self.judge_name = self.judge.model.name
        self.judge.model.check(self.judge.sampling[1])
        self.provenance = f"{world.provenance}; judge {self.judge_name}"
        self.journal, self._rows = journal, dict[tuple[str, str, str], _Row]()
        self._asked: dict[tuple[str, str, str], asyncio.Task[_Row]] = {}
        if journal.exists():
            for line in journal.read_text(encoding="utf-8").splitlines():
                row = parsed(_Row, parse_json(line, f"{journal}: a line is damaged; remove it"),
                             f"{journal}: a line is no verdict; remove it")
                self._rows[row.judge, row.task, row.answer] = row

    async def ascore(self, task: Task, answer: str) -> float:
        """1 for an exact match, else 1 where the judge says yes. Raises ModelError where it cannot be reached."""
        self.check_sealed(task)
        exact = super()._score(task, answer)
        if exact or not answer:
            return exact
        key = (self.judge_name, task.id, answer)
        if key not in self._rows:
            if key not in self._asked:
                self._asked[key] = asyncio.create_task(self._ask(task, answer))
            try:
                self._rows[key] = await self._asked[key]
            finally:
                self._asked.pop(key, None)
        return float(self._rows[key].said is True)

    async def _ask(self, task: Task, answer: str) -> _Row:
        current = engine.Context()
        engine.enter(current)
        try:
            said = verdict(await self.judge.aforward(**self.to_judge(task, answer)))
        except ModelError:
            if not current.usage or not any(usage.parse_failures for usage in current.usage.values()):
                raise
            said = None
        usage = {model: {name: amount for name, amount in used.to_dict().items() if amount} for (_, model), used
                 in current.usage_by_model.items()}
        row = _Row(judge=self.judge_name, task=task.id, answer=answer, said=said, usage=usage)
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(as_json(row.model_dump()) + "\n")
        return row

    def said(self) -> str:
        """How answers were judged, as sentences."""
        rows = self._rows.values()
        unclear = sum(row.said is None for row in rows)
        return (f"An answer scores 1 where it matches exactly or {self.judge_name} calls it right: {len(rows)} answers "
                f"were judged, {sum(row.said is True for row in rows)} right, {unclear} unclear (scored 0).")

    def bills(self) -> list[Bill]:
        """What the judge cost."""
        results = [TaskResult(row.task, usage_by_model={"judge": row.usage}) for row in self._rows.values()]
        return bills_of(results, phase="judging")

    def solved(self, score: float) -> bool:
        return score == 1.0

    def _score(self, task: Task, answer: str) -> float:
        raise StlError("answers are judged by a model: await ascore(task, answer) in place of score")
