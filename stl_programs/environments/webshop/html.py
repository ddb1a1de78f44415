"""Pages as HTML that a person can shop on, and that published clients read as they read the original's.

Clients take visible text in its order, `<button>`s, `<label>`s of options after the option's name, and links of the
class `product-link`; so no page shows a word more than the original's. One form carries the chosen options, so that
nothing needs a script.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from urllib.parse import quote

from stl_programs.environments.webshop.pages import BACK, BUY, NEXT, PREVIOUS, SCORE, SEARCH, Node, Page
from stl_programs.environments.webshop.shop import Session

STYLE = """
:root { color-scheme: light dark; --line: #8886; --accent: #14635a; --ink: #fff }
@media (prefers-color-scheme: dark) { :root { --accent: #6fc7bb; --ink: #04211d } }
* { box-sizing: border-box }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 46rem; padding: 1rem; overflow-wrap: anywhere }
form { display: inline }
button { font: inherit; min-height: 2.75rem; padding: .4rem 1rem; margin: .25rem .25rem .25rem 0; cursor: pointer;
         border: 1px solid var(--accent); border-radius: .4rem; background: none; color: inherit }
button.main { background: var(--accent); color: var(--ink) }
input[type=text] { font: inherit; width: 100%; min-height: 2.75rem; padding: .4rem .6rem; margin: .5rem 0;
                   border: 1px solid var(--line); border-radius: .4rem }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
.goal { padding: .75rem 1rem; border-left: 4px solid var(--accent); background: #8881; margin: 0 0 1rem }
.product { border-top: 1px solid var(--line); padding: .75rem 0 }
.product-link { display: inline-block; min-height: 2rem; color: var(--accent) }
fieldset { border: 1px solid var(--line); border-radius: .4rem; margin: .75rem 0; padding: .5rem .75rem }
fieldset span { display: inline-block; margin-right: .25rem }
input[type=radio] { width: 1.15rem; height: 1.15rem; vertical-align: middle; accent-color: var(--accent) }
label { display: inline-block; padding: .5rem .75rem .5rem .35rem; cursor: pointer }
input:checked + label { font-weight: 700; text-decoration: underline }
pre { white-space: pre-wrap; font: inherit }
.again::after { content: "Shop again" }
""".strip()
_TITLES = {"index": "Search", "results": "Results", "item": "Product", "sub": "About the product", "done": "Bought"}


def render(page: Page, session: Session, name: str) -> str:
    """The page of a session as a whole document; `name` is that of the session, as addresses have it."""
    body = {"index": _index, "results": _results, "item": _item, "sub": _sub, "done": _done}[session.kind]
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>WebShop: {_TITLES[session.kind]}</title>\n"
            f'<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n'
            f"{body(list(page), session, name)}\n</main>\n</body>\n</html>\n")


def address(session: Session, name: str) -> str:
    """The path of a session's page, quoted."""
    query, options = "+".join(session.keywords), str(dict(session.options))
    where = [session.asin, query, str(session.number)]
    parts = {"index": [name], "results": ["search_results", name, *where[1:]],
             "item": ["item_page", name, *where, options], "sub": ["item_sub_page", name, *where, session.sub, options],
             "done": ["done", name, session.asin, options]}[session.kind]
    return "/" + "/".join(quote(part, safe="+,") for part in parts)


def _button(label: str, target: str, main: bool = False) -> str:
    kind = ' class="btn main"' if main else ' class="btn"'
    return f'<form method="get" action="{escape(target)}"><button type="submit"{kind}>{escape(label)}</button></form>'


def _goal(nodes: list[Node], level: str = "h2") -> str:
    """The instruction; its two texts are taken off the nodes."""
    head = nodes.pop(0).text
    text = nodes.pop(0).text if nodes and nodes[0].kind == "text" else ""
    return f'<{level} class="goal" id="instruction-text">{escape(head)}<br>{escape(text)}</{level}>'


def _index(nodes: list[Node], session: Session, name: str) -> str:
    title = escape(nodes.pop(0).text)
    return (f"<h1>{title}</h1>\n{_goal(nodes)}\n"
            f'<form role="search" method="post" action="{escape(address(session, name))}">\n'
            f'<input id="search_input" type="text" name="search_query" aria-label="Search for products" '
            f'placeholder="Search..." required autofocus maxlength="900">\n'
            f'<button class="btn main" type="submit">{SEARCH}</button>\n</form>')


def _results(nodes: list[Node], session: Session, name: str) -> str:
    found = [_goal(nodes), _button(BACK, address(Session(session.goal), name))]
    opened = False
    for node in nodes:
        if node.kind == "button" and node.text in (NEXT, PREVIOUS):
            step = 1 if node.text == NEXT else -1
            found.append(_button(node.text, address(session._replace(number=session.number + step), name)))
        elif node.kind == "product":
            found.append("</div>" if opened else "")
            target, asin = address(session._replace(kind="item", asin=node.text), name), escape(node.text)
            found.append(f'<div class="product"><a class="product-link" href="{escape(target)}">{asin}</a>')
            opened = True
        elif node.kind == "text":
            found.append(f"<div>{escape(node.text)}</div>" if opened else f"<h3>{escape(node.text)}</h3>")
    return "\n".join(filter(None, [*found, "</div>" if opened else ""]))


def _item(nodes: list[Node], session: Session, name: str) -> str:
    results = session._replace(kind="results", asin="", options=())
    found = [_goal(nodes), _button(BACK, address(Session(session.goal), name)),
             _button(PREVIOUS, address(results, name)),
             f'<form method="get" action="{escape(_choosing(session, name, BUY))}">']
    chosen, open_option = dict(session.options), ""
    for number, node in enumerate(nodes[2:]):
        if open_option and node.option != open_option:
            found.append("</fieldset>")
        if node.kind == "value":
            if node.option != open_option:
                found.append(f'<fieldset aria-label="{escape(node.option)}">')
            text, checked = escape(node.text), " checked" if chosen.get(node.option) == node.text else ""
            found.append(f'<input type="radio" id="option{number}" name="{escape(node.option)}" value="{text}"'
                         f'{checked}><label for="option{number}">{text}</label>')
        elif node.kind == "button":
            main = " main" if node.text == BUY else ""
            found.append(f'<button type="submit" class="btn{main}" '
                         f'formaction="{escape(_choosing(session, name, node.text))}">{escape(node.text)}</button>')
        else:
            found.append(f"<div>{escape(node.text)}</div>")
        open_option = node.option
    return "\n".join([*found, "</form>"])


def _choosing(session: Session, name: str, button: str) -> str:
    """Where a button of a product's page leads: with the options that are chosen then, on to a sub-page or the end."""
    parts = ["choose", name, session.asin, "+".join(session.keywords), str(session.number), button]
    return "/" + "/".join(quote(part, safe="+,") for part in parts)


def _sub(nodes: list[Node], session: Session, name: str) -> str:
    found = [_goal(nodes), _button(BACK, address(Session(session.goal), name)),
             _button(PREVIOUS, address(session._replace(kind="item", sub=""), name))]
    return "\n".join([*found, *(f'<p class="product-info">{escape(node.text)}</p>' for node in nodes
                                if node.kind == "text")])


def _done(nodes: list[Node], session: Session, name: str) -> str:
    """The score; what the original hides is hidden here too. The way back is drawn by the style: it is no text."""
    texts = [node.text for node in nodes]
    place = texts.index(SCORE)
    before = "\n".join(f"<div>{escape(text)}</div>" for text in texts[1:place])
    after = "\n".join(f"<div>{escape(text)}</div>" for text in texts[place + 2:])
    return (f"<h1>{escape(texts[0])}</h1>\n<div hidden>{before}</div>\n"
            f'<h3 id="reward">{escape(SCORE)}<pre>{escape(texts[place + 1])}</pre></h3>\n<div hidden>{after}</div>\n'
            f'<a class="again" href="{escape(address(Session(session.goal), name))}" aria-label="Shop again"></a>')


def chosen_options(query: Mapping[str, str], options: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, str], ...]:
    """The options of a product that a form sent; others are left out."""
    return tuple((name, value) for name, value in query.items() if value in options.get(name, ()))


