"""The code's own imports as a graph of files, and the house that they have to fit in.

A room may import itself and the rooms below it. `HOUSE` lists, for a package, its rooms from the bottom; names in one
tuple are one room, and ALL_OTHERS stands for every name that is not listed. A package's `__init__` is its top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("signatures", "stl_programs", "optimizers", "experiments")
"""From the lowest to the highest."""
ALL_OTHERS = "*"
HOUSE: dict[str, tuple[tuple[str, ...], ...]] = {
    "": tuple((package,) for package in PACKAGES),
    "stl_programs": (
        ("errors", "secrets", "credentials", "spellings", "children", "extras", "version", "exports", "display"),
        ("outside",), ("construct",), ("records",), ("situations",), ("environments",), ("tree",), ("models",),
        ("costs",), ("engine",), ("citizen",), ("saved_states",), ("saved_settings",), ("predictor",), ("saving",),
        ("policies",), ("values",), ("search",), ("testing",), ("viewer", "doctor", "new")),
    "stl_programs.models": (
        ("base", "versions", "echoes", "parsing"), ("brought",), ("formats",), ("prices",), ("artifacts",),
        ("adapters",), ("local",), ("served",), ("credentials",), ("vllm",), ("registry",), ("doors",)),
    "optimizers": (("data",), ("trainers",), (ALL_OTHERS,)),
    "experiments": (("kit",), (ALL_OTHERS,)),
}
APART = ("experiments",)
"""Packages whose other rooms (studies, benchmarks) do not import each other."""


@dataclass(frozen=True, order=True)
class Arrow:
    """The file of module `source` imports that of module `target`; a package's name is its `__init__`."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def modules(root: Path, packages: Iterable[str] = PACKAGES) -> dict[str, Path]:
    """Every file of the packages under `root`, by its module's name."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows(files: dict[str, Path]) -> list[Arrow]:
    """Every import of one of the files by another, wherever in the file it stands (functions, TYPE_CHECKING)."""
    found = {Arrow(source, target) for source, path in files.items() for target in _imports(source, path)
             for target in [_file_of(target, files)] if target and target != source}
    return sorted(found)


def _imports(module: str, path: Path) -> Iterable[str]:
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _file_of(name: str, files: dict[str, Path]) -> str | None:
    """The module that an imported name comes from: itself, or what it is an attribute of."""
    return name if name in files else parent if (parent := name.rpartition(".")[0]) in files else None


def climbing(found: Iterable[Arrow]) -> list[str]:
    """The arrows that run up, or aside where they must not, each with the rule that it breaks."""
    return [f"{arrow} ({why})" for arrow in found if (why := _trouble(arrow))]


def _trouble(arrow: Arrow) -> str | None:
    source, target = arrow.source.split("."), arrow.target.split(".")
    if source[:len(target)] == target:
        if source[len(target):] == ["__main__"]:  # python -m PACKAGE runs what the package offers
            return None
        return f"a file inside {arrow.target} imports its __init__"
    shared = next(i for i, name in enumerate(target) if source[i:i + 1] != [name])
    package, inside, imported = ".".join(source[:shared]), source[shared:], target[shared]
    if package not in HOUSE or not inside:  # rooms are in no order here; an __init__ is on top of what it holds
        return None
    here, there = _level(package, inside[0]), _level(package, imported)
    if here is None or there is None:
        return f"{inside[0] if here is None else imported} is no room of {package}; give it a place in HOUSE"
    if there > here:
        return f"{package or 'the project'}: {imported} is above {inside[0]}"
    if there == here and package in APART:
        return f"{package}: {inside[0]} and {imported} stand apart"
    return None


def _level(package: str, name: str) -> int | None:
    rooms = HOUSE[package]
    named = next((i for i, room in enumerate(rooms) if name in room), None)
    return named if named is not None else next((i for i, room in enumerate(rooms) if ALL_OTHERS in room), None)


def circles(found: Iterable[Arrow]) -> list[str]:
    """The strongly connected components of more than one file, each as the arrows inside it."""
    found = list(found)
    targets: dict[str, set[str]] = {}
    for arrow in found:
        targets.setdefault(arrow.source, set()).add(arrow.target)
    reached = {source: _reachable(source, targets) for source in targets}
    groups = {frozenset(other for other in reached[one] if one in reached.get(other, ())) for one in targets
              if one in reached[one]}
    return sorted("; ".join(str(arrow) for arrow in found if {arrow.source, arrow.target} <= group) for group in groups)


def _reachable(start: str, targets: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = targets.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen
