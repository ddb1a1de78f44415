"""The search tree: plain data, written by searches, read by lookahead, viewers and replays."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stl_programs.display import html_block, markdown_block, one_line
from stl_programs.records import Sample, State, Task, Usage, ValueEstimate
from stl_programs.situations import Proposal, Sibling, Situation, Source

ABOUT = ("program", "information", "answer", "chosen", "ended", "untaken")
FEW = 64
"""Children up to which a tuple is made anew for each."""
SHOWN = 200
"""Lines of a tree that a notebook shows."""


@dataclass(slots=True, eq=False)
class Node:
    """One visited or proposed state.

    `kept` marks states that the search went on from. `worth` is the estimate scaled to [0, 1], `prior` the policy's
    probability of the action (0 where it gives none); `visits`, `value_sum` and `value_max` are what was backed up
    through the node on the scale of `worth`; `in_flight` counts simulations through it that are not backed up yet
    (WU-UCT). `closed`: nothing is left to learn below it. `listed`: every successor that the policy proposed is a
    child. `children` are ids in a tuple, which Python's collector does not walk; many of them in an array.
    """

    id: int
    parent: int | None
    action: str | None
    state: State
    depth: int
    estimate: ValueEstimate | None = None
    children: tuple[int, ...] | array[int] = ()
    expanded: bool = False
    listed: bool = False
    kept: bool = False
    worth: float = 0.0
    prior: float = 0.0
    visits: int = 0
    value_sum: float = 0.0
    value_max: float = 0.0
    in_flight: int = 0
    closed: bool = False
    observed: str | None = None
    """What the step to it showed, where that is not the state's text."""
    source: Source | None = None
    logprob: float | None = None
    inputs: dict[str, Any] | None = None
    """What a lookahead signature asks about it that cannot be read from the tree."""

    @property
    def observation(self) -> str:
        """What was observed on arriving: that page alone, not the way to it."""
        return self.state.text if self.observed is None else self.observed


@dataclass(frozen=True)
class Found:
    """What a search ends with: its tree, the leaf it chose, that leaf's answer; the budget that ended it, if any."""

    tree: Tree
    leaf: Node
    answer: str
    ended: str | None = None
    ended_by: str | None = None
    """Whose budget it was: "task", "run" or a module."""
    committed: str | None = None
    """The action that cannot be undone and was taken after the search."""


class Tree:
    """All states of one search for one task; `nodes[i].id == i`, the root is node 0.

    `notes` are what the search tells its modules in words; see `Situation.notes`.
    """

    def __init__(self, task: Task, root: State, environment: Any = None, notes: tuple[str, ...] = ()):
        self.task, self.environment, self.notes = task, environment, notes
        self.nodes = [Node(0, None, None, root, 0, kept=True)]
        self.about: dict[str, Any] = {}
        """program, information, answer, chosen (a node's id), ended and untaken, once the search is over."""
        self.paid: dict[Any, Usage] = {}
        """What was paid about each state key."""
        self._situations: dict[int, Situation] = {}

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def add(self, parent: Node, action: str, state: State, *, observation: str = "", source: Source | None = None,
            logprob: float | None = None) -> Node:
        """A new child. `observation` is what the step showed, where that is not the state's text."""
        node = Node(len(self.nodes), parent.id, action, state, parent.depth + 1)
        if observation and observation != state.text:
            node.observed = observation
        if source is not None or logprob is not None:
            node.source, node.logprob = source, logprob
        self.nodes.append(node)
        children = parent.children
        if isinstance(children, array):
            children.append(node.id)
        else:
            parent.children = (*children, node.id) if len(children) < FEW else array("q", (*children, node.id))
        return node

    def add_all(self, parent: Node, proposals: Sequence[Proposal]) -> list[Node]:
        """A new child for each proposal, in order."""
        nodes, depth, above, start = self.nodes, parent.depth + 1, parent.id, len(self.nodes)
        for _, (state, _, _, observation), source, logprob in proposals:
            node = Node(len(nodes), above, state.history[-1], state, depth)
            if observation and observation != state.text:
                node.observed = observation
            if source is not None or logprob is not None:
                node.source, node.logprob = source, logprob
            nodes.append(node)
        children, ids = parent.children, range(start, len(nodes))
        if isinstance(children, array):
            children.extend(ids)
        else:
            parent.children = (*children, *ids) if len(children) + len(ids) <= FEW else array("q", (*children, *ids))
        return nodes[start:]

    def renumber(self, nodes: list[Node]) -> None:
        """Number the newest nodes, which have no children yet, in the order of `nodes`; a parent keeps its own order.

        Where calls overlap, ids are given as they end; what is drawn by order must not depend on that.
        """
        start = len(self.nodes) - len(nodes)
        if all(node.id == start + i for i, node in enumerate(nodes)):
            return
        for i, node in enumerate(nodes):
            node.id = start + i
        self.nodes[start:] = nodes
        families: dict[int, list[int]] = {}
        for node in nodes:
            families.setdefault(node.parent or 0, []).append(node.id)
        for parent, ids in families.items():
            known = self.nodes[parent].children
            known = known[:len(known) - len(ids)]
            self.nodes[parent].children = array("q", (*known, *ids)) if isinstance(known, array) else (*known, *ids)

    def children(self, node: Node) -> list[Node]:
        nodes = self.nodes
        return [nodes[i] for i in node.children]

    def path(self, node: Node) -> list[Node]:
        """From the root to `node`, both included."""
        path = [node]
        while path[-1].parent is not None:
            path.append(self.nodes[path[-1].parent])
        return path[::-1]

    def complete(self, node: Node) -> bool:
        """Whether all successors of `node` are known, and every one was judged."""
        return node.listed and all(self.nodes[i].estimate is not None for i in node.children)

    def expanded(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.expanded)

    def situation(self, node: Node, siblings: bool = False) -> Situation:
        """What a module sees of `node`; with `siblings`, also the other successors of its parent."""
        found = self._seen(node)
        if not siblings or node.parent is None:
            return found
        return found._replace(siblings=tuple(
            Sibling(other.action or "", other.state, other.estimate)
            for other in self.children(self.nodes[node.parent]) if other is not node))

    def situations(self, nodes: Sequence[Node]) -> list[Situation]:
        """`situation` of each; quicker where they have one parent."""
        environment, task, notes, known = self.environment, self.task, self.notes, self.nodes
        found, parent, before = [], None, None
        for node in nodes:
            if node.parent != parent:
                parent = node.parent
                before = None if parent is None else self._seen(known[parent])
            found.append(Situation(environment, task, node.state, node.action, before, (), notes, node.estimate))
        return found

    def _seen(self, node: Node) -> Situation:
        """The situation of `node`, made once; from the root down, as trees may be deeper than Python's stack."""
        found = self._situations.get(node.id)
        if found is None or found.estimate is not node.estimate or found.notes is not self.notes:
            missing: list[Node] = []
            above: Node | None = node
            while above is not None and (above is node or above.id not in self._situations):
                missing.append(above)
                above = None if above.parent is None else self.nodes[above.parent]
            found = None if above is None else self._situations[above.id]
            for one in reversed(missing):
                found = self._situations[one.id] = Situation(self.environment, self.task, one.state, one.action, found,
                                                             (), self.notes, one.estimate)
            assert found is not None
        return found

    def __len__(self) -> int:
        return len(self.nodes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. Left out: the states' payloads, and the rationales of draws that were not chosen.

        A cost stands at the first node of its state.
        """
        paid = dict(self.paid)
        task: dict[str, Any] = {"id": self.task.id} if self.task.id != self.task.text else {}
        if self.task.fields:
            task["fields"] = dict(self.task.fields)
        return {"task": self.task.text, **task, **self.about, "nodes": [
            {"id": n.id, "parent": n.parent, "action": n.action, "state": n.state.text, "key": n.state.key,
             "terminal": n.state.terminal, "expanded": n.expanded, "kept": n.kept,
             "value": None if n.estimate is None else {
                 "score": n.estimate.score, "rationale": n.estimate.rationale,
                 "samples": [[s.score, s.missing] for s in n.estimate.samples]}}
            | ({"complete": True} if n.expanded and self.complete(n) else {})
            | ({"visits": n.visits, "value_sum": n.value_sum, "value_max": n.value_max} if n.visits else {})
            | {name: given for name, given in (
                ("observed", n.observed), ("logprob", n.logprob), ("prior", n.prior or None), ("inputs", n.inputs),
                ("source", n.source and list(n.source)), ("untaken", n.state.untaken or None)) if given is not None}
            | ({"cost": _priced(paid.pop(n.state.key))} if n.state.key in paid else {})
            for n in self.nodes]}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Tree:
        """The inverse of `to_dict`, without the states' payloads and the nodes' `worth`."""
        task = Task(record.get("id", record["task"]), record["task"], record.get("fields", {}))
        tree: Tree | None = None
        for row in record["nodes"]:
            untaken = row.get("untaken", False)
            if tree is None:
                tree = cls(task, State(row["state"], row["key"], (), row["terminal"], None, untaken))
                node = tree.root
            else:
                parent = tree.nodes[row["parent"]]
                history = (*parent.state.history, row["action"])
                source = row.get("source")
                node = tree.add(parent, row["action"], State(row["state"], row["key"], history, row["terminal"], None,
                                                             untaken),
                                observation=row.get("observed", ""), source=source and Source(*source),
                                logprob=row.get("logprob"))
            node.expanded, node.kept, node.listed = row["expanded"], row["kept"], row.get("complete", False)
            node.visits, node.value_sum = row.get("visits", 0), row.get("value_sum", 0.0)
            node.value_max, node.inputs = row.get("value_max", 0.0), row.get("inputs")
            node.prior = row.get("prior", 0.0)
            if cost := row.get("cost"):
                tree.paid[row["key"]] = Usage(**cost)
            if row["value"] is not None:
                value = row["value"]
                node.estimate = ValueEstimate(value["score"], value["rationale"],
                                              tuple(Sample(score, missing=why) for score, why in value["samples"]))
        if tree is None:
            raise ValueError("a tree record without nodes")
        tree.about = {name: record[name] for name in ABOUT if name in record}
        return tree

    def render(self, only_kept: bool = True, width: int = 100) -> str:
        """The tree as indented text, one state a line of at most `width` characters, best first."""
        lines: list[str] = []
        stack = [self.root]
        while stack:
            node = stack.pop()
            score = "" if node.estimate is None else (
                " ?" if node.estimate.score is None else f" {node.estimate.score:g}")
            action = f"{one_line(node.action, width)}  ->  " if node.action else ""
            lines.append(f"{'  ' * node.depth}{'*' if node.kept else ' '} {action}{one_line(node.state.text, width)}"
                         f"{score}{' (not taken)' if node.state.untaken else ''}")
            children = [c for c in self.children(node) if c.kept or not only_kept]
            stack += sorted(children, key=lambda c: -1e9 if c.estimate is None or c.estimate.score is None
                            else c.estimate.score)
        return "\n".join(lines)

    def __repr__(self) -> str:
        answer = self.about.get("answer")
        return (f"<{self.about.get('program', 'Tree')}: {len(self)} states of {one_line(self.task.text, 60)!r}"
                + ("" if answer is None else f", answer {one_line(answer, 60)!r}") + ">")

    def _repr_html_(self) -> str:
        """In a notebook: the states that the search went on from; what models wrote is escaped."""
        return html_block(self._shown())

    def _repr_markdown_(self) -> str:
        """The same where a notebook shows Markdown."""
        return markdown_block(self._shown())

    def _shown(self) -> str:
        lines = self.render().split("\n")
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        return "\n".join([repr(self), *lines[:SHOWN], *more])


def _priced(usage: Usage) -> dict[str, Any]:
    return {"calls": usage.calls, "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
            "dollars": usage.dollars}
