"""The generated pages: one per public name of the three packages, and what every file is for.

A page only names its object; mkdocstrings fills it from the docstring when the site is built.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import dspy

ROOT = Path(__file__).parents[1]
PACKAGES = ("stl_programs", "optimizers", "signatures")
ROOMS = ("signatures", "stl_programs", "optimizers", "experiments")


def api_pages() -> dict[str, str]:
    """Markdown by path in the site: `api/PACKAGE/NAME.md`, and `api/index.md` with a line for each."""
    pages, index = {}, ["# API", "", "A page per public name, from the docstrings."]
    for package in PACKAGES:
        module = importlib.import_module(package)
        index += ["", f"## {package}", "", (module.__doc__ or "").strip(), "", "| name | |", "| --- | --- |"]
        for name in sorted(module.__all__, key=str.lower):
            thing = getattr(module, name)
            pages[f"api/{package}/{name}.md"] = page(package, name, thing)
            index.append(f"| [`{name}`]({package}/{name}.md) | {summary(thing)} |")
    return {"api/index.md": "\n".join([*index, ""]), **pages}


def page(package: str, name: str, thing: object) -> str:
    """The page of one public name; a signature's fields are a table."""
    if inspect.isclass(thing) and issubclass(thing, dspy.Signature):
        return "\n".join([f"::: {home(package, name, thing)}", "    options: {members: false, show_bases: false}", "",
                          *fields(thing), ""])
    return f"::: {home(package, name, thing)}\n"


def home(package: str, name: str, thing: object) -> str:
    """Where `thing` is defined, as a dotted path. Raises LookupError for a public name that no file defines."""
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ".".join([*path.relative_to(ROOT).with_suffix("").parts, name]).replace(".__init__.", ".")
    raise LookupError(f"{package}.__all__ names {name}, which no file of {package} defines at its top level")


def fields(signature: type[dspy.Signature]) -> list[str]:
    """A signature's inputs and outputs as the lines of a table."""
    rows = ["| field | | type | |", "| --- | --- | --- | --- |"]
    for kind, infos in (("input", signature.input_fields), ("output", signature.output_fields)):
        for name, info in infos.items():
            said = (info.json_schema_extra or {}).get("desc", "")
            rows.append(f"| `{name}` | {kind} | `{inspect.formatannotation(info.annotation)}` | "
                        f"{'' if said == f'${{{name}}}' else said} |")
    return rows


def summary(thing: object) -> str:
    """The first paragraph of a docstring, on one line; of a constant, its value."""
    documented = inspect.isclass(thing) or inspect.isfunction(thing)
    text = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split()) if documented else f"`{thing!r}`"
    return text.replace("|", "\\|")


def file_map() -> str:
    """Every module of the four rooms with the first line of its docstring, and the API pages that it fills."""
    fills = dict(_fills())
    lines = ["# File map", "", "Every file with the first line of its docstring, room by room; imports point from the",
             "later rooms to the earlier ones only."]
    for room in ROOMS:
        folder = None
        for path in sorted((ROOT / room).rglob("*.py"), key=lambda path: (path.parent, path.name)):
            if path.parent != folder:
                folder = path.parent
                lines += ["", f"{'##' if path.parent.name == room else '###'} {folder.relative_to(ROOT)}", "",
                          "| file | what it is for | public |", "| --- | --- | --- |"]
            lines.append(f"| `{path.name}` | {first_line(path)} | {', '.join(fills.get(path, []))} |")
    return "\n".join([*lines, ""])


def first_line(path: Path) -> str:
    """Of a module's docstring. Raises ValueError where it has none."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not doc:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring; its first line is its line of the file map")
    return doc.partition("\n")[0].replace("|", "\\|")


def _fills() -> Iterator[tuple[Path, list[str]]]:
    """Files, and links to the API pages of the public names that they define."""
    links: dict[Path, list[str]] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in sorted(module.__all__, key=str.lower):
            dotted = home(package, name, getattr(module, name)).rpartition(".")[0]
            path = ROOT.joinpath(*dotted.split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            links.setdefault(path, []).append(f"[{name}](api/{package}/{name}.md)")
    yield from links.items()
