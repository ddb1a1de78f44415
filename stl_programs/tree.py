"""The search tree: plain data, written by searches, read by lookahead, viewers and replays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stl_programs.records import Sample, State, Task, Usage, ValueEstimate

ABOUT = ("program", "information", "answer", "chosen", "ended")


@dataclass(slots=True, eq=False)
class Node:
    """One visited or proposed state.

    `kept` marks states that the search went on from. `prior` is the estimate scaled to [0, 1]; `visits`, `value_sum`
    and `value_max` are what was backed up through the node on that scale; `in_flight` counts simulations through it
    that are not backed up yet (WU-UCT). `closed`: nothing is left to learn below it. `children` are ids in a tuple,
    which Python's collector does not walk.
    """

    id: int
    parent: int | None
    action: str | None
    state: State
    depth: int
    estimate: ValueEstimate | None = None
    children: tuple[int, ...] = ()
    expanded: bool = False
    kept: bool = False
    prior: float = 0.0
    visits: int = 0
    value_sum: float = 0.0
    value_max: float = 0.0
    in_flight: int = 0
    closed: bool = False


@dataclass(frozen=True)
class Found:
    """What a search ends with: its tree, the leaf it chose, that leaf's answer; the budget that ended it, if any."""

    tree: Tree
    leaf: Node
    answer: str
    ended: str | None = None


class Tree:
    """All states of one search for one task; `nodes[i].id == i`, the root is node 0."""

    def __init__(self, task: Task, root: State):
        self.task = task
        self.nodes = [Node(0, None, None, root, 0, kept=True)]
        self.about: dict[str, Any] = {}
        """program, information, answer, chosen (a node's id) and ended, once the search is over."""
        self.costs: dict[Any, Usage] = {}
        """What was paid about each state key."""

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def add(self, parent: Node, action: str, state: State) -> Node:
        node = Node(len(self.nodes), parent.id, action, state, parent.depth + 1)
        self.nodes.append(node)
        parent.children += (node.id,)
        return node

    def children(self, node: Node) -> list[Node]:
        return [self.nodes[i] for i in node.children]

    def path(self, node: Node) -> list[Node]:
        """From the root to `node`, both included."""
        path = [node]
        while path[-1].parent is not None:
            path.append(self.nodes[path[-1].parent])
        return path[::-1]

    def expanded(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.expanded)

    def __len__(self) -> int:
        return len(self.nodes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. Left out: the states' payloads, and the rationales of draws that were not chosen.

        A cost stands at the first node of its state.
        """
        costs = dict(self.costs)
        return {"task": self.task.text, **self.about, "nodes": [
            {"id": n.id, "parent": n.parent, "action": n.action, "state": n.state.text, "key": n.state.key,
             "terminal": n.state.terminal, "expanded": n.expanded, "kept": n.kept,
             "value": None if n.estimate is None else {
                 "score": n.estimate.score, "rationale": n.estimate.rationale,
                 "samples": [[s.score, s.missing] for s in n.estimate.samples]}}
            | ({"visits": n.visits, "value_sum": n.value_sum, "value_max": n.value_max} if n.visits else {})
            | ({"cost": _priced(costs.pop(n.state.key))} if n.state.key in costs else {})
            for n in self.nodes]}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Tree:
        """The inverse of `to_dict`, without the states' payloads."""
        task = Task(record["task"], record["task"])
        tree: Tree | None = None
        for row in record["nodes"]:
            if tree is None:
                tree = cls(task, State(row["state"], row["key"], terminal=row["terminal"]))
                node = tree.root
            else:
                parent = tree.nodes[row["parent"]]
                history = (*parent.state.history, row["action"])
                node = tree.add(parent, row["action"], State(row["state"], row["key"], history, row["terminal"]))
            node.expanded, node.kept = row["expanded"], row["kept"]
            node.visits, node.value_sum = row.get("visits", 0), row.get("value_sum", 0.0)
            node.value_max = row.get("value_max", 0.0)
            if cost := row.get("cost"):
                tree.costs[row["key"]] = Usage(**cost)
            if row["value"] is not None:
                value = row["value"]
                node.estimate = ValueEstimate(value["score"], value["rationale"],
                                              tuple(Sample(score, missing=why) for score, why in value["samples"]))
        if tree is None:
            raise ValueError("a tree record without nodes")
        tree.about = {name: record[name] for name in ABOUT if name in record}
        return tree

    def render(self, only_kept: bool = True) -> str:
        """The tree as indented text, one state a line, best first."""
        lines: list[str] = []

        def visit(node: Node) -> None:
            worth = "" if node.estimate is None else (
                " ?" if node.estimate.score is None else f" {node.estimate.score:g}")
            action = f"{node.action}  ->  " if node.action else ""
            lines.append(f"{'  ' * node.depth}{'*' if node.kept else ' '} {action}{node.state.text}{worth}")
            children = [c for c in self.children(node) if c.kept or not only_kept]
            for child in sorted(children, key=lambda c: -1e9 if c.estimate is None or c.estimate.score is None
                                else c.estimate.score, reverse=True):
                visit(child)

        visit(self.root)
        return "\n".join(lines)


def _priced(usage: Usage) -> dict[str, Any]:
    return {"calls": usage.calls, "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
            "dollars": usage.dollars}
