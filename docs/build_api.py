"""Write one page per public class into docs/api, from signatures and docstrings.

    python docs/build_api.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import dspy

import optimizers
import signatures
import stl_programs

FOLDER = Path(__file__).parent / "api"
PACKAGES = (stl_programs, optimizers, signatures)


def page(name: str, thing: type) -> str:
    lines = [f"# {name}", "", f"`{thing.__module__}.{thing.__qualname__}`", ""]
    if issubclass(thing, dspy.Signature):
        lines += [thing.instructions, "", "| field | type | |", "| --- | --- | --- |"]
        for kind, fields in (("input", thing.input_fields), ("output", thing.output_fields)):
            lines += [f"| {field} | {kind}, `{getattr(info.annotation, '__name__', info.annotation)}` | "
                      f"{(info.json_schema_extra or {}).get('desc', '')} |" for field, info in fields.items()]
        return "\n".join([*lines, ""])
    lines += ["```python", f"{name}{_call(thing)}", "```", "", _doc(thing)]
    for member, value in sorted(vars(thing).items()):
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if member.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        function = inspect.unwrap(function)
        kind = "async " if inspect.iscoroutinefunction(function) else ""
        lines += ["", f"## {kind}{member}{_call(function)}", "", _doc(function)]
    return "\n".join([*lines, ""])


def _call(thing: object) -> str:
    text = str(inspect.signature(thing.__init__ if inspect.isclass(thing) else thing))  # type: ignore[arg-type, misc]
    text = re.sub(r"""(: |-> )(["'])(.*?)\2(?=[,)=]| =|$)""", r"\1\3", text)
    text = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", text)
    return text.replace("(self, ", "(").replace("(self)", "()")


def _doc(thing: object) -> str:
    doc = inspect.getdoc(thing) or ""
    return "```text\n" + doc + "\n```"


def pages() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        for name in package.__all__:
            thing = getattr(package, name)
            if inspect.isclass(thing):
                found[f"{name}.md"] = page(name, thing)
    index = "\n".join(["# API", "", "One page per public class.", "",
                       *(f"- [{name[:-3]}]({name})" for name in sorted(found)), ""])
    return {**found, "README.md": index}


def main() -> int:
    wanted = pages()
    if "--check" in sys.argv:
        have = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
        stale = sorted(name for name in wanted.keys() | have.keys() if wanted.get(name) != have.get(name))
        print(f"stale: {', '.join(stale)}; run python docs/build_api.py" if stale else "docs/api is current")
        return bool(stale)
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.md"):
        path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{len(wanted)} pages in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
