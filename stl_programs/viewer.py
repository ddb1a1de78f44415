"""A recorded tree as one self-contained HTML page. Model-written text is escaped."""

from __future__ import annotations

from html import escape

from stl_programs.tree import Node, Tree

_STYLE = """body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:70em}details{margin-left:1.4em}
summary{cursor:pointer}.kept>summary{font-weight:600}.v{color:#05c}.missing{color:#b00}.why{color:#666;font-size:12px}
code{background:#f4f4f4;padding:0 .3em}"""


def tree_page(tree: Tree) -> str:
    """An HTML page of nested, foldable states with values and rationales; kept states are bold and open."""
    parts = ["<!doctype html><meta charset='utf-8'>", f"<title>{escape(tree.task.text)}</title>",
             f"<style>{_STYLE}</style><h1>{escape(tree.task.text)}</h1>",
             f"<p>{len(tree)} states, {sum(1 for _ in tree.expanded())} expanded. Bold: kept by the search.</p>"]

    def visit(node: Node) -> None:
        estimate = node.estimate
        value = "" if estimate is None else "<span class=missing>missing</span>" if estimate.score is None else (
            f"<span class=v>{estimate.score:g}</span>")
        action = f"<code>{escape(node.action)}</code> &rarr; " if node.action else ""
        classes = " class=kept open" if node.kept else ""
        parts.append(f"<details{classes}><summary>{action}{escape(node.state.text)} {value}</summary>")
        if estimate is not None and estimate.rationale:
            parts.append(f"<div class=why>{escape(estimate.rationale)}</div>")
        for child in sorted(tree.children(node), key=lambda c: not c.kept):
            visit(child)
        parts.append("</details>")

    visit(tree.root)
    return "\n".join(parts)
