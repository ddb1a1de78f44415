"""A recorded tree as one self-contained HTML page, for a browser or MLflow's artifact view.

Everything a model wrote travels as escaped JSON and is put on the page as text; a strict content security policy
runs the page's own script and nothing else. `page.html` is the frame, `model.js` the tree and which rows are open,
`view.js` rows, panel and keys.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from stl_programs.display import clean
from stl_programs.secrets import cleaned
from stl_programs.tree import Tree

LARGEST = 1e300
"""Numbers beyond are none."""
_INERT = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def tree_page(tree: Tree | dict[str, Any]) -> str:
    """The page of one tree: every state with its value, draws, visits and cost, the chosen path highlighted.

    `tree` is a `Tree` or what its `to_dict` returned, also from an older record that lacks some keys. The page needs
    no network and stays quick with tens of thousands of states: only the rows in sight are in the document.
    Raises ValueError for a record without nodes, or whose parents or chosen leaf are not in it.
    """
    shown = cleaned(page_record(tree if isinstance(tree, dict) else tree.to_dict()))
    style = _asset("page.css")
    script = _asset("model.js") + _asset("view.js")
    policy = (f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; base-uri 'none'; "
              "form-action 'none'")
    title = " ".join(shown["task"].split())[:100].encode("utf-8", "replace").decode()
    data = json.dumps(shown, allow_nan=False, separators=(",", ":")).translate(_INERT)
    return Template(_asset("page.html")).substitute(
        policy=policy, title=escape(title), style=style, script=script, data=data)


def page_record(record: dict[str, Any]) -> dict[str, Any]:
    """What the page reads: the record with texts as str, numbers finite, parents and `chosen` as positions, totals."""
    rows = record.get("nodes") or []
    if not isinstance(rows, list) or not rows:
        raise ValueError("a tree record without nodes, in a list: there is nothing to show")
    place: dict[Any, int] = {}
    nodes: list[dict[str, Any]] = []
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"node {len(nodes)} of the tree is a {type(row).__name__}; a node is an object")
        name, parent = row.get("id", len(nodes)), row.get("parent")
        if not all(one is None or isinstance(one, (int, str)) for one in (name, parent)):
            raise ValueError(f"node {len(nodes)} of the tree has an id or a parent that is no number and no text")
        if parent is not None and parent not in place:
            raise ValueError(f"node {name} names parent {parent}, which does not come before it")
        if name in place:
            raise ValueError(f"two nodes have the id {name}; every node needs its own")
        place[name] = len(nodes)
        shown = clean(name) if isinstance(name, str) else name
        nodes.append({"id": shown, "parent": None if parent is None else place[parent]} | _node(row))
    chosen = record.get("chosen")
    if chosen is not None and (not isinstance(chosen, (int, str)) or chosen not in place):
        raise ValueError(f"the chosen leaf {chosen} is not among the {len(nodes)} nodes of the tree")
    return {"task": _text(record.get("task", "")), "chosen": None if chosen is None else place[chosen],
            **{name: _text(record.get(name)) for name in ("program", "information", "answer")},
            "ended": _text(record.get("ended")) or ("finished by itself" if "ended" in record else None),
            "totals": _totals(nodes), "nodes": nodes}


def _node(row: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = {"action": _text(row.get("action")), "state": _text(row.get("state", ""))}
    node |= {flag: True for flag in ("terminal", "expanded", "kept") if row.get(flag)}
    if visits := _number(row.get("visits")):
        node["visits"] = visits
        if (total := _number(row.get("value_sum"))) is not None:
            node["backed_up"] = [total / visits, _number(row.get("value_max"))]
    if (value := _object(row, "value")) is not None:
        node["value"] = {"score": _number(value.get("score")), "rationale": _text(value.get("rationale") or ""),
                         "samples": [[_number(score), _text(why)] for score, why in _pairs(value.get("samples"))]}
    if (cost := _object(row, "cost")) is not None:
        node["cost"] = {name: _number(cost.get(name)) or 0 for name in ("calls", "prompt_tokens", "completion_tokens")}
        node["cost"]["dollars"] = _number(cost.get("dollars"))
    return node


def _totals(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    values = [node["value"] for node in nodes if "value" in node]
    scores = [value["score"] for value in values if value["score"] is not None]
    draws = [score for value in values for score, _ in value["samples"]]
    costs = [node["cost"] for node in nodes if "cost" in node]
    priced = [cost["dollars"] for cost in costs if cost["dollars"] is not None]
    return {"states": len(nodes), "expanded": sum("expanded" in node for node in nodes),
            "kept": sum("kept" in node for node in nodes), "judged": len(values),
            "missing": len(values) - len(scores), "draws": len(draws), "draws_missing": draws.count(None),
            "lowest": min(scores, default=None), "highest": max(scores, default=None),
            "visited": any("visits" in node for node in nodes),
            "cost": None if not costs else {
                **{name: sum(cost[name] for cost in costs) for name in ("calls", "prompt_tokens", "completion_tokens")},
                "dollars": sum(priced) if priced else None, "unpriced": len(costs) - len(priced)}}


def _text(value: Any) -> str | None:
    """As text that acts on no reader; half a surrogate pair also ends a browser that is asked for the page's text."""
    return None if value is None else clean(str(value))


def _number(value: Any) -> float | None:
    """A number that a page can show; None for anything else."""
    return value if isinstance(value, int | float) and abs(value) <= LARGEST else None


def _object(row: dict[str, Any], name: str) -> dict[str, Any] | None:
    if (found := row.get(name)) is not None and not isinstance(found, dict):
        raise ValueError(f"a node's {name} is a {type(found).__name__}; it is an object")
    return found


def _pairs(found: Any) -> list[Any]:
    pairs = found if isinstance(found, list) else []
    return [pair for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2]


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The one inline text that a content security policy lets run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
