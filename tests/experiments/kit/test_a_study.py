"""The kit knows no world: any program is evaluated and reported with it, graded scores and all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments.kit import report
from experiments.kit.evaluation import evaluate, journal_of
from experiments.kit.tables import caption, lines, markdown, panels, show
from stl_programs import BeamSearch, GreedySearch, LegalMoves, Uniform
from stl_programs.engine import read_journal
from stl_programs.errors import StlError
from stl_programs.testing import TreeWorld
from stl_programs.testing.tree_world import WorldValue

ROOT = Path(__file__).parents[3]
ENV = TreeWorld(depth=3, branching=3)
TASKS = ENV.tasks("test")[:8]


class Failing(WorldValue):
    """Cannot judge the states of one world."""

    async def estimate(self, situation):
        if situation.task == TASKS[0]:
            raise StlError("this world cannot be judged")
        return await super().estimate(situation)


def beams(value, row, folder, **options):
    return [evaluate(BeamSearch(ENV, LegalMoves(), value, width=width), TASKS, row=row, split="test",
                     setting={"width": width}, seeds=[0, 1], folder=folder, **options) for width in (3, 1)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A whole study of a world of graded scores."""
    folder = tmp_path_factory.mktemp("study")
    cells = [*beams(Uniform(), "uniform", folder), *beams(Failing(noise=0.3), "noisy", folder)]
    summary = report.summarize(cells, title="Tree worlds", information="nothing", measure="score",
                               baselines=["uniform"])
    return cells, summary, report.write(summary, folder / "report")


def test_a_score_is_kept_apart_from_what_is_solved(study):
    cells, _, _ = study
    for cell in cells:
        expected = [[0.0 if found["error"] else ENV.score(task, found["answer"])
                     for task, found in zip(TASKS, per_seed, strict=True)] for per_seed in cell.outcomes]
        assert cell.scores.shape == (2, 8) and cell.scores.tolist() == expected
        assert cell.solved.tolist() == [[float(score == 1.0) for score in row] for row in expected]
        assert cell.mean_score == pytest.approx(np.mean(expected)) and cell.success_rate < cell.mean_score
    assert any(0 < score < 1 for score in cells[2].scores.flat) and cells[2].success_rate > 0


def test_a_failed_task_counts_nothing_and_is_shown(study):
    cells, summary, files = study
    assert [cell.failures for cell in cells] == [0, 0, 2, 2]
    failed = cells[2].outcomes[0][0]
    assert (failed["score"], failed["solved"], failed["answer"]) == (0.0, False, None)
    assert "be judged" in failed["error"]
    assert not cells[2].scores[:, 0].any() and cells[2].scores[:, 1:].all()
    assert [row["failures"] for row in summary["rows"]] == [0, 0, 2, 2]
    assert "| noisy | test | 3 |" in files[1].read_text() and lines(summary)[2][6] == "2"


def test_every_row_says_score_success_rate_n_and_seeds(study):
    cells, summary, files = study
    assert json.loads(files[0].read_text()) == summary == report.read(files[0].parent)
    for cell, row in zip(cells, summary["rows"], strict=True):
        assert row["score"]["mean"] == cell.mean_score and row["success_rate"]["mean"] == cell.success_rate
        assert row["score"]["low"] < row["score"]["mean"] < row["score"]["high"]
        assert (row["n"], row["seeds"], row["setting"]) == (8, [0, 1], cell.setting)
    uniform, noisy = summary["rows"][0], summary["rows"][2]
    assert uniform["minus"] == {} and set(noisy["minus"]) == {"uniform"}
    difference = noisy["minus"]["uniform"]
    assert difference["score"]["mean"] == pytest.approx(cells[2].mean_score - cells[0].mean_score)
    assert difference["success_rate"]["mean"] == pytest.approx(cells[2].success_rate - cells[0].success_rate)


def test_the_report_is_in_the_words_of_the_study(study, capsys):
    _, summary, files = study
    assert panels(summary) == ["test, width 3", "test, width 1"]
    text = markdown(summary)
    assert "| score | test, width 3 | test, width 1 | test, width 3, minus uniform |" in text
    assert "n = 8 tasks and 2 evaluation seed(s)" in caption(summary) and files[2].read_bytes()[:4] == b"\x89PNG"
    show(summary, files[0].parent, ["Next: look at [it]"])
    printed = capsys.readouterr().out
    assert "Tree worlds" in printed and "Next: look at [it]" in printed


def test_what_a_study_chose_by_is_shown_last(tmp_path):
    def cell(row, split):
        return evaluate(GreedySearch(ENV, LegalMoves(), Uniform()), TASKS[:2], row=row, split=split, folder=tmp_path)

    summary = report.summarize([cell("a", "validation"), cell("a", "test"), cell("b", "test")], title="t",
                               information="i", chosen="a", chosen_on="validation")
    assert panels(summary) == ["test", "validation"] and "a was chosen on validation." in caption(summary)
    assert "| **a** |" in markdown(summary)


def test_running_again_asks_nothing_anew(tmp_path):
    value = WorldValue(noise=0.3)
    first = beams(value, "noisy", tmp_path)
    journals = [journal_of(tmp_path, "noisy", "test", {"width": width}) for width in (3, 1)]
    assert sorted(tmp_path.iterdir()) == sorted(journals) and len(read_journal(journals[0]).results) == 16
    before = [journal.read_bytes() for journal in journals]
    assert beams(value, "noisy", tmp_path) == first and [journal.read_bytes() for journal in journals] == before


def test_an_environment_says_what_solves_a_task(tmp_path):
    class Lenient(TreeWorld):
        def solved(self, score):
            return score > 0.5

    program = GreedySearch(Lenient(depth=3, branching=3), LegalMoves(), Uniform())
    cell = evaluate(program, TASKS, row="lenient", split="test", folder=tmp_path)
    assert cell.solved.tolist() == (cell.scores > 0.5).astype(float).tolist()
    assert cell.success_rate > (cell.scores == 1.0).mean(), "the threshold is the world's"


@pytest.mark.parametrize("score", [1.5, -0.1, float("nan")])
def test_a_score_out_of_range_is_an_error(tmp_path, score):
    class Wrong(TreeWorld):
        def _score(self, task, answer):
            return score

    program = GreedySearch(Wrong(depth=2, branching=2), LegalMoves(), Uniform())
    with pytest.raises(StlError, match=r"is in\s+\[0, 1\]"):
        evaluate(program, TASKS[:1], row="wrong", split="test", folder=tmp_path)


def test_nothing_to_evaluate_or_report_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="0 tasks and 1 seeds"):
        evaluate(GreedySearch(ENV, LegalMoves(), Uniform()), [], row="none", split="test", folder=tmp_path)
    with pytest.raises(ValueError, match="no cell"):
        report.summarize([], title="none", information="none")
    (tmp_path / "summary.json").write_text('{"schema": 1}')
    with pytest.raises(ValueError, match="has schema 1; this version reads 2"):
        report.read(tmp_path)


def test_documented_keys_are_the_keys(study):
    _, summary, _ = study
    schema = (ROOT / "docs" / "summary.md").read_text()
    row = summary["rows"][2]
    for key in [*summary, *row, *row["outcomes"][0][0], *row["per_task"], *row["missing"]]:
        assert f"`{key}`" in schema, key


def test_the_kit_speaks_of_no_world():
    for path in sorted((ROOT / "experiments" / "kit").glob("*.py")):
        found = re.search(r"beam|puzzle|\bV\(?\d|V\(k\)|game.?of.?24|game24|calculator", path.read_text(), re.I)
        assert found is None, f"{path.name} speaks of {found and found.group()!r}"
