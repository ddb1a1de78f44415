"""A working file and its test to start from: a world, a search or an optimizer of one's own."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from stl_programs.errors import StlError
from stl_programs.saving import Saved

KINDS = ("environment", "search", "optimizer")
TEMPLATES = Path(__file__).parent / "templates"
PLACEHOLDERS = {"environment": ("my_world", "MyWorld"), "search": ("my_search", "MySearch"),
                "optimizer": ("my_optimizer", "MyOptimizer")}
"""The module and the class that a template is written as."""
SNAKE, CAMEL = r"[a-z][a-z0-9]*(_[a-z0-9]+)*", r"[A-Z][A-Za-z0-9]*"


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Write `NAME.py` and `test_NAME.py` into `folder`; the test passes as it is.

    Args:
        kind: one of `KINDS`. name: of the module (my_shop) or of the class (MyShop); either gives the other.

    Raises StlError, before anything is written, for a name that cannot be one or is taken, for a file that exists, and
    for a folder that does not, or is a package.

    Example:
        >>> write("environment", "MyShop", Path("."))
        [PosixPath('my_shop.py'), PosixPath('test_my_shop.py')]
    """
    if kind not in KINDS:
        raise StlError(f"no scaffold {kind!r}; there are {', '.join(KINDS)}")
    module, named = names(name)
    texts = {folder / f"{prefix}{module}.py": filled(kind, prefix, module, named) for prefix in ("", "test_")}
    check_folder(folder, list(texts))
    check_free(kind, module, named)
    for path, text in texts.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return list(texts)


def names(name: str) -> tuple[str, str]:
    """The module's and the class's name, of either. Raises StlError for a name that is neither."""
    if re.fullmatch(SNAKE, name):
        module, named = name, "".join(word.capitalize() for word in name.split("_"))
    elif re.fullmatch(CAMEL, name):
        module, named = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower(), name
    else:
        raise StlError(f"{name!r} cannot name a file and a class; write my_shop or MyShop: letters, digits and _")
    if keyword.iskeyword(module) or keyword.iskeyword(named):
        raise StlError(f"{name!r} is a word of Python's own; choose another name")
    return module, named


def filled(kind: str, prefix: str, module: str, named: str) -> str:
    """The text of a template, under the names that were chosen."""
    old_module, old_named = PLACEHOLDERS[kind]
    text = (TEMPLATES / f"{prefix}{kind}.py.txt").read_text(encoding="utf-8")
    return text.replace(old_module, module).replace(old_named, named)


def check_folder(folder: Path, paths: list[Path]) -> None:
    """Raises StlError where the files cannot be written, or the test could not import what it tests."""
    if not folder.is_dir():
        raise StlError(f"{folder} is no folder; make it, or choose another with --to")
    if (folder / "__init__.py").exists():
        raise StlError(f"{folder} is a package, where a test cannot import the file beside it; choose another folder "
                       "with --to, and move the files once they do what you want")
    for path in paths:
        if path.exists():
            raise StlError(f"{path} exists, and is not overwritten; choose another name, or remove it")


def check_free(kind: str, module: str, named: str) -> None:
    """Raises StlError for a name under which another module or class would be hidden."""
    spec = importlib.util.find_spec(module)
    origin = None if spec is None else spec.origin
    if origin is not None and Path(origin).resolve().parent != Path.cwd():
        raise StlError(f"{module}.py would hide the module {module!r}, which is there already; choose another name")
    texts = (path.read_text(encoding="utf-8") for path in TEMPLATES.glob(f"*{kind}.py.txt"))
    used = {word for text in texts for word in re.findall(r"\w+", text)}
    if named in (used - {PLACEHOLDERS[kind][1]}) | set(Saved.kinds):
        raise StlError(f"{named} is a class of this package; a second one would take its place: choose another name")
