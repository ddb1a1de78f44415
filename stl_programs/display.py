"""What records show of themselves, in a terminal and in a notebook: nothing that a model wrote acts on either."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tabs and line ends, marks that turn the direction of writing, halves of surrogates."""
MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&-])")
"""What Markdown, or the HTML in it, would read as more than text."""


def clean(text: str) -> str:
    """`text` with a visible mark in place of each character that acts on a terminal or a page.

    Example:
        >>> clean("red \\x1b[31m")
        'red �[31m'
    """
    return RAW.sub("\ufffd", text)


def one_line(text: str, width: int = 100) -> str:
    """`text` on one line, clean, cut to `width` characters."""
    flat = clean(" / ".join(" ".join(line.split()) for line in text.splitlines() if line.strip()))
    return flat if len(flat) <= width else f"{flat[:width - 3]}..."


def html_table(rows: Mapping[str, Any]) -> str:
    """Names and what they are, escaped; rows without anything are left out."""
    body = "".join(f"<tr><th>{html.escape(clean(name))}</th><td>{html.escape(clean(str(value)))}</td></tr>"
                   for name, value in _said(rows).items())
    return f"<table>{body}</table>"


def html_block(text: str) -> str:
    """`text` as it stands, escaped."""
    return f"<pre>{html.escape(clean_lines(text))}</pre>"


def markdown_table(rows: Mapping[str, Any]) -> str:
    """The same as a table of Markdown."""
    lines = [f"| {_escaped(name)} | {_escaped(value)} |" for name, value in _said(rows).items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def markdown_block(text: str) -> str:
    """`text` as it stands, indented as Markdown's code is: no text can end it."""
    return "\n".join(f"    {line}" for line in clean_lines(text).split("\n"))


def clean_lines(text: str) -> str:
    """`text` clean, with its line ends."""
    return "\n".join(clean(line) for line in text.splitlines())


def _said(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rows.items() if value not in (None, "", [], {})}


def _escaped(value: Any) -> str:
    return MARKDOWN.sub(r"\\\1", one_line(str(value), 2000))
