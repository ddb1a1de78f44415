"""What a program returns: a dspy.Prediction that shows itself in a notebook."""

from __future__ import annotations

import html
from typing import Any

import dspy

from stl_programs.records import TaskResult
from stl_programs.tree import Tree


class Outcome(dspy.Prediction):
    """answer, trajectory, tree, usage, cost, ended, untaken, notes of one search."""

    @classmethod
    def of(cls, result: TaskResult) -> Outcome:
        prices = [usage["dollars"] for usage in result.usage.values()]
        return cls(answer=result.answer, trajectory=result.trajectory, tree=Tree.from_dict(result.tree or {}),
                   usage=result.usage, cost=None if None in prices else sum(prices), ended=result.ended,
                   untaken=result.untaken, notes=result.notes)

    def toDict(self) -> dict[str, Any]:
        """JSON-ready; the tree as its record."""
        return {**super().toDict(), "tree": self.tree.to_dict()}

    def _repr_html_(self) -> str:
        """In a notebook: the answer, what it cost, and the tree; what models wrote is escaped."""
        rows = {"answer": self.answer, "actions": " / ".join(self.trajectory), "ended by": self.ended,
                "chosen, not taken": self.untaken, "dollars": self.cost,
                "tokens": sum(one["prompt_tokens"] + one["completion_tokens"] for one in self.usage.values()),
                "noticed": "; ".join(f"{what}: {count}" for what, count in self.notes.items())}
        body = "".join(f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>"
                       for name, value in rows.items() if value not in (None, ""))
        return f"<table>{body}</table>{self.tree._repr_html_()}"
