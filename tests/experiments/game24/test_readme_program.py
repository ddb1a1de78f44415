"""The README's first program: what is replaced in it, what it is held against, and what may not count as fresh."""

from __future__ import annotations

import json

import pytest

from experiments.game24.pretrain import BROUGHT
from experiments.game24.readme_program import (
    README,
    ROWS,
    TUNED_ON,
    chosen_on,
    figures,
    held_back,
    main,
    snippet,
    together,
    without,
)
from experiments.kit.evaluation import Cell
from stl_programs import GameOf24, models
from stl_programs.errors import StlError


def cells(puzzles, **solved):
    def outcome(task, done):
        return {"task": task, "solved": done, "answer": "", "error": None, "usage": {}}

    return {row: Cell(row, "test", 5, "reward-free", "LegalMoves", "any", 3, [0, 1], [
        [outcome(task, done) for task, done in zip(puzzles, solved[row[:2]], strict=True)]] * 2) for row in ROWS}


def test_only_the_environment_and_the_seed_are_replaced():
    printed = README.read_text().partition("```python\n")[2].partition("```")[0]
    code = snippet(README.read_text(), 7, 3)
    assert code.replace("split_seed=7", "").replace("seed=3, ", "") == printed
    assert "GameOf24(split_seed=7)" in code and "SelfTaughtLookahead(seed=3, " in code
    compile(code, "README.md", "exec")


def test_a_readme_that_has_changed_is_an_error():
    with pytest.raises(StlError, match=r"'GameOf24\(\)' 0 times"):
        snippet("```python\nprint(1)\n```", 7, 0)


def test_splits_that_settings_were_chosen_on_are_refused(tmp_path, capsys):
    assert main(["--split-seeds", str(TUNED_ON[0]), "5", "--run-dir", str(tmp_path)]) == 1
    assert f"split seeds [{TUNED_ON[0]}]: settings were chosen on them" in capsys.readouterr().err
    assert {task.text for task in GameOf24(split_seed=TUNED_ON[0]).tasks("validation")} < chosen_on()


def test_figures_are_paired_and_splits_come_together():
    one = cells(["a", "b"], V0=[True, False], co=[True, True])
    two = cells(["b", "c"], V0=[False, False], co=[False, True])
    every = figures(together([one, two]))
    assert (every["n"], every["distinct puzzles"]) == (4, 3)
    assert every["differences"]["compiled minus V0"]["mean"] == 0.5
    assert figures(without(one, {"b"}))["rows"]["V0"]["interval"]["mean"] == 1.0


def test_the_usual_test_puzzles_were_held_back_from_pre_training():
    found = held_back([task.text for task in GameOf24().tasks("test")[:5]])
    assert found["puzzles held back"] == 5 and found["states held back"] == found["states"]


def test_what_pre_training_writes_is_what_ships():
    assert json.loads((models.EMBEDDED / "game24" / "stl_programs.json").read_text()) == BROUGHT
