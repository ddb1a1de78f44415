"""What is written works as it is written; what must not be written is refused in one line, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stl_programs.errors import StlError
from stl_programs.new import KINDS, TEMPLATES, names, write
from stl_programs.new.__main__ import main

ROOT = Path(__file__).parents[3]
NAMES = {"environment": "corner_shop", "search": "Wanderer", "optimizer": "SteadyHand"}


@pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=[pytest.mark.slow] if kind == "optimizer" else []) for kind in KINDS])
def test_what_is_written_passes_its_test(tmp_path, kind):
    ours = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stl_programs.new", kind, NAMES[kind]]
    done = subprocess.run(command, cwd=tmp_path, env=ours, capture_output=True, text=True, check=True)
    file, test = done.stdout.splitlines()[:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((file, test))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=tmp_path, env=ours, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_template_s_own_name_is_left(tmp_path, kind):
    for path in write(kind, NAMES[kind], tmp_path):
        text = path.read_text()
        assert names(NAMES[kind])[1] in text
        assert "my_" not in text and "MyWorld" not in text and "MySearch" not in text and "MyOptimizer" not in text


@pytest.mark.parametrize(("name", "module", "named"), [
    ("my_shop", "my_shop", "MyShop"), ("MyShop", "my_shop", "MyShop"), ("shop2", "shop2", "Shop2"),
    ("HTTPShop", "http_shop", "HTTPShop"), ("grid_8x8", "grid_8x8", "Grid8x8")])
def test_either_name_gives_the_other(name, module, named):
    assert names(name) == (module, named)


@pytest.mark.parametrize(("kind", "name", "why"), [
    ("environment", "my-shop", "'my-shop' cannot name a file and a class"),
    ("environment", "../shop", "cannot name a file and a class"),
    ("environment", "2shop", "cannot name a file and a class"),
    ("environment", "my__shop", "cannot name a file and a class"),
    ("environment", "", "cannot name a file and a class"),
    ("environment", "lambda", "a word of Python's own"),
    ("environment", "None", "a word of Python's own"),
    ("environment", "json", "json.py would hide the module 'json'"),
    ("environment", "pytest", "would hide the module 'pytest'"),
    ("environment", "Environment", "Environment is a class of this package"),
    ("environment", "beam_search", "BeamSearch is a class of this package"),
    ("search", "LiteSearch", "LiteSearch is a class of this package"),
    ("garden", "my_shop", "no scaffold 'garden'; there are environment, search, optimizer")])
def test_a_name_that_cannot_be_one_is_refused(tmp_path, kind, name, why):
    with pytest.raises(StlError, match=why):
        write(kind, name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("taken", ["my_shop.py", "test_my_shop.py"])
def test_a_file_is_never_overwritten(tmp_path, taken, capsys):
    (tmp_path / taken).write_text("mine")
    assert main(["environment", "my_shop", "--to", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {taken: "mine"}
    (tmp_path / taken).unlink()
    assert main(["environment", "my_shop", "--to", str(tmp_path)]) == 0


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(StlError, match="is no folder; make it"):
        write("search", "wanderer", tmp_path / "nowhere")
    (tmp_path / "__init__.py").touch()
    with pytest.raises(StlError, match="is a package"):
        write("search", "wanderer", tmp_path)


def test_a_file_of_the_same_name_elsewhere_is_no_hindrance(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    write("search", "roamer", Path())
    assert write("search", "roamer", tmp_path / "there")[0].exists()


def test_the_templates_are_installed_with_the_package():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    installed = {path for pattern in data["stl_programs"] for path in (ROOT / "stl_programs").glob(pattern)}
    written = {TEMPLATES / f"{prefix}{kind}.py.txt" for kind in KINDS for prefix in ("", "test_")}
    assert written <= installed and set(TEMPLATES.iterdir()) == written
