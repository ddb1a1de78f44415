"""From a page's HTML back to its text nodes, as published clients take them: also of an original server."""

from __future__ import annotations

from html.parser import HTMLParser

from stl_programs.environments.webshop.pages import Node, Page

_HIDDEN = frozenset({"style", "script", "head", "title", "meta", "noscript"})
_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
DEEPEST = 500


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.nodes: list[Node] = []
        self.open: list[tuple[str, str]] = []
        self.heading = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID and len(self.open) < DEEPEST:
            self.open.append((tag, dict(attributes).get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost such tag; an end of what is not open, as the original's pages have, means nothing."""
        place = next((i for i in range(len(self.open) - 1, -1, -1) if self.open[i][0] == tag), None)
        if place is not None:
            del self.open[place:]

    def handle_data(self, text: str) -> None:
        if not text.strip() or any(tag in _HIDDEN for tag, _ in self.open):
            return
        tag, kind = self.open[-1] if self.open else ("", "")
        if tag == "button":
            self.nodes.append(Node("button", text))
        elif tag == "label":
            self.nodes.append(Node("value", text, self.heading))
        elif kind == "product-link":
            self.nodes.append(Node("product", text))
        else:
            self.nodes.append(Node("text", text))
            self.heading = text


def read_page(html: str) -> Page:
    """The visible texts of a page in their order: buttons, products, values of options, and the rest."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return tuple(reader.nodes)
