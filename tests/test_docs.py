"""What the documents show is run; what they name exists; every public name and every file has its line."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("signatures", "stl_programs", "optimizers", "experiments")
PYTHON = re.compile(r"```python\n(.*?)```", re.S)
SHOWS = {
    "tutorial.md": [r"embedded/game24@value-v1-", "judgements"],
    "models.md": [r"True\n", " tokens", "True True", r"\| value \| hosted_vllm/game24 \|"],
    "search.md": ["LiteSearch", "the task's budget of 40 calls is spent", r"replies kept, \[\] possibly paid"],
    "finetune.md": [r"embedded/game24@tuned-\w{10} \['4 \* 6 = 24 -> 24 \. end \| sure'\]",
                    "train_data_format='completion'", r"kept \d+ judgements, [1-9]\d* wrongly hopeless", "dropped"],
    "your-own-task.md": ["ladder: cord card ward warm", r"keys: \['card/0', 'card/2'\]", "no word twice", "sum: 42",
                         "- the key '.+' comes twice on one path", r"lift: \['up', 'up', 'up'\]",
                         "shop: nothing to mend", "untaken: buy mug", "committed: buy mug", "paged: buy mug",
                         "CyclicLadder: nothing to mend\nLadder: the key",
                         r"a row says: cold -> cord \| 3 letters", "cannot be tuned from here; pass weights=DIRECTORY"],
    "your-own-method.md": ["depth first: .*4", "attempts: 8", "widening: .*4", "near: .*4", r"two judges: .* \d+ calls",
                           "tuned: embedded/game24@value-v1-", "executor: 3 answers", "loaded: NearTwentyFour 4 2 3"],
    "webshop.md": [r"organic cotton oxford shirt", r"click\[buy now\]'\]", r"score [01]\.", "catalogue embedded, 400"],
    "hotpotqa.md": ["Velvet Anchor is a synth pop band", r"Similar: \['Velvet Anchor", r"exact match 1\.0 F1 1\.0",
                    "possible_next_actions", "embedded wiki, 253 questions"]}
"""Pages whose python blocks are run, and what they print: every page of docs/ that has such blocks."""
SLOW = {"tutorial.md", "your-own-method.md", "search.md", "models.md", "finetune.md"}
"""Those of ten seconds and more."""
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(ROOT / "docs"))
    yield importlib.import_module("reference")
    sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize("page", [
    pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in SHOWS])
def test_the_pages_run(tmp_path, page):
    blocks = PYTHON.findall((ROOT / "docs" / page).read_text())
    assert len(blocks) >= 4
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "never retrieved" not in done.stderr
    for text in SHOWS[page]:
        assert re.search(text, done.stdout), text


def test_every_page_with_blocks_is_run():
    assert set(SHOWS) == {path.name for path in (ROOT / "docs").glob("*.md") if PYTHON.search(path.read_text())}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page, reference):
    path, generated = ROOT / page, reference.api_pages()
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists() or target in generated, f"{page} links to {target}"


def test_every_public_name_has_a_page_that_says_something(reference):
    pages = reference.api_pages()
    for package in reference.PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            assert f"{name}" in pages[f"api/{package}/{name}.md"].splitlines()[0]
            assert reference.summary(getattr(module, name)), f"{package}.{name} has no docstring"
            assert f"]({package}/{name}.md) |" in pages["api/index.md"]


def test_a_signature_shows_its_fields(reference):
    from signatures import ProposeActions

    assert reference.fields(ProposeActions)[-2:] == [
        "| `count` | input | `int` | how many actions are wanted |", "| `actions` | output | `list[str]` |  |"]


def test_every_file_is_on_the_map(reference):
    rows = [line for line in reference.file_map().splitlines() if line.startswith("| `")]
    files = [path for room in reference.ROOMS for path in (ROOT / room).rglob("*.py")]
    assert len(rows) == len(files)
    assert any(row.startswith("| `beam.py` | Beam search: ") and "(api/stl_programs/BeamSearch.md)" in row
               for row in rows)


def test_a_file_without_a_docstring_is_named(reference, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    (tmp_path / "silent.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"silent\.py has no docstring"):
        reference.first_line(tmp_path / "silent.py")


def test_the_documents_name_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for command in set(re.findall(r"`make ([a-z-]+)", (ROOT / page).read_text())):
            assert re.search(rf"^{command}:", makefile, re.M), f"{page} names make {command}"


def test_the_picture_of_the_house_is_true():
    picture = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)[1]
    lines = [line.removeprefix("    |   ").split("   ")[0] for line in picture.splitlines()
             if line.startswith("    |   ") and line[8] != " "]
    height = {room: len(lines) - at for at, line in enumerate(lines) for room in line.split(", ")}
    package = ROOT / "stl_programs"
    rooms = {path.relative_to(package).with_suffix("").parts[0] for path in package.rglob("*.py")} - {"__init__"}
    assert rooms <= set(height), f"the picture lacks {sorted(rooms - set(height))}"
    for path in package.rglob("*.py"):
        here = path.relative_to(package).with_suffix("").parts[0]
        if here == "__init__":
            continue
        for module in re.findall(r"^\s*(?:from|import) stl_programs\.(\w+)", path.read_text(), re.M):
            assert module == here or height[module] < height[here], f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    """`path/to/file.py` in backticks; NAME stands for what a reader chooses."""
    for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", (ROOT / page).read_text()):
        if path.split("/")[0] in {*ROOMS, "docs", "tests", ".ci"} and "NAME" not in path:
            assert (ROOT / path).exists(), f"{page} names {path}"


def test_one_version():
    import stl_programs

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == stl_programs.__version__
