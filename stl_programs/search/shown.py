"""What a program returns: a dspy.Prediction that shows itself in a notebook."""

from __future__ import annotations

from typing import Any

import dspy

from stl_programs.display import html_table, markdown_table
from stl_programs.records import TaskResult, cost_rows, noticed
from stl_programs.tree import Tree


class Outcome(dspy.Prediction):
    """trajectory, tree, usage, cost, ended, untaken, committed, notes and answer of one search.

    The answer stands last, where dspy.majority looks for it.

    Example:
        >>> program(task="4 5 6 10")            # at the end of a notebook's cell: the answer, its cost, the tree
    """

    @classmethod
    def of(cls, result: TaskResult) -> Outcome:
        return cls(trajectory=result.trajectory, tree=Tree.from_dict(result.tree or {}), usage=result.usage,
                   cost=result.cost, ended=result.ended, untaken=result.untaken,
                   committed=result.committed, notes=result.notes,
                   answer=result.answer)

    def toDict(self) -> dict[str, Any]:
        """JSON-ready; the tree as its record."""
        return {**super().toDict(), "tree": self.tree.to_dict()}

    def _repr_html_(self) -> str:
        """In a notebook: the answer, what it cost, and the tree; what models wrote is escaped."""
        return html_table(self._shown()) + self.tree._repr_html_()

    def _repr_markdown_(self) -> str:
        """The same where a notebook shows Markdown."""
        return f"{markdown_table(self._shown())}\n\n{self.tree._repr_markdown_()}"

    def _shown(self) -> dict[str, Any]:
        return {"answer": self.answer, "actions": " / ".join(self.trajectory), "ended by": self.ended,
                "chosen, not taken": self.untaken, "taken": self.committed, **cost_rows(self.usage, self.cost),
                "noticed": noticed(self.notes)}
