"""The paper's protocol end to end on both embedded worlds, with named fakes that read what they are asked."""

from __future__ import annotations

import json

import pytest

from experiments.hotpotqa.experiment import Answering
from experiments.kit import protocol
from experiments.webshop.experiment import Shopping
from stl_programs.errors import StlError

SMALL = ["--tasks", "3", "--epochs", "1", "--samples", "2", "--simulations", "2", "--adapters", "one", "--trials", "2",
         "--limit", "4", "--mlflow", ""]
WORLDS = {"webshop": Shopping, "hotpotqa": Answering}


def ran(name, folder, *more):
    status = protocol.main(WORLDS[name](), f"experiments.{name}", [*SMALL, "--run-dir", str(folder), *more])
    return status, json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("name", WORLDS)
def test_base_and_tuned_values_are_compared_trial_by_trial_and_a_second_run_does_nothing_again(name, tmp_path, capsys):
    status, summary = ran(name, tmp_path / "run", "--pages")
    assert status == 0
    rows = {(row["row"], row["setting"]["trial"]): row for row in summary["rows"]}
    chosen = ("first", "own choice", "oracle's best")
    assert list(rows) == [(row, trial) for row in ("base", "tuned") for trial in chosen]
    for (row, trial), found in rows.items():
        assert found["n"] == 4 and found["failures"] == 0 and found["per_task"]["calls"] > 0
        assert found["value"].endswith(("shopper", "librarian")) == (row == "base")
        assert found["score"]["mean"] <= rows[row, "oracle's best"]["score"]["mean"]
        if row == "tuned":
            assert set(found["minus"]) == {"base"} and found["minus"]["base"]["score"]["p"] is not None
        if trial != "first":
            assert found["per_task"]["states_judged"] > rows[row, "first"]["per_task"]["states_judged"]
    for words in ("named fake", "own choice: the one of 2", "no method may know"):
        assert words in summary["trial"] + summary["notes"]
    assert len(list((tmp_path / "run" / "pages").glob("*.html"))) == 8
    phases = {(bill["phase"], bill["open"]) for bill in summary["costs"]}
    assert {("rollouts", True), ("training", True), ("evaluation", True)} <= phases
    journals = {path: path.stat().st_size for path in (tmp_path / "run").rglob("*.jsonl")}
    status, again = ran(name, tmp_path / "run")
    assert status == 0 and "going on after" in capsys.readouterr().out
    assert {path: path.stat().st_size for path in (tmp_path / "run").rglob("*.jsonl")} == journals
    for one in (summary, again):
        for row in one["rows"]:
            row.pop("value")  # the simulated server has another port, and the adapter another name
    assert [row["outcomes"] for row in again["rows"]] == [row["outcomes"] for row in summary["rows"]]


@pytest.mark.parametrize("name, wrong, said", [
    ("webshop", ["--items", "nothing.json"], "nothing.json"), ("webshop", ["--value", "nowhere/x"], "nowhere/x"),
    ("hotpotqa", ["--data", "nothing.json"], "nothing.json"), ("hotpotqa", ["--judge", "nowhere/x"], "nowhere/x")])
def test_bad_input_is_one_line_before_any_work(name, wrong, said, tmp_path, capsys):
    assert protocol.main(WORLDS[name](), f"experiments.{name}", [*SMALL, "--run-dir", str(tmp_path / "r"), *wrong]) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and said in line and len(line) < 500
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize("wrong", [["--tasks", "0"], ["--depth", "1"], ["--trials", "nine"], ["--loss", "none"]])
def test_flags_have_limits(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit):
        protocol.main(Shopping(), "experiments.webshop", wrong)
    assert wrong[0] in capsys.readouterr().err


def test_the_defaults_are_the_papers():
    shopping, shop = protocol.parse(Shopping(), "experiments.webshop", [])
    answering, wiki = protocol.parse(Answering(), "experiments.hotpotqa", [])
    for settings, tasks in ((shopping, 50), (answering, 500)):
        assert (settings.tasks, settings.iterations, settings.simulations, settings.actions, settings.samples,
                settings.trials, settings.adapters, settings.loss) == (tasks, 1, 5, 5, 5, 3, "per depth",
                                                                       "input+output")
    assert (shop.depth, wiki.depth) == (5, 4)
    stl = protocol.optimizer(shopping, shop.run_dir, 0, None, None)
    assert (stl.per_depth, stl.lora.epochs, stl.lora.rank) == (True, 20, 16)


def test_a_policy_of_a_model_chooses_among_a_page_s_actions():
    world = Shopping()
    settings, arguments = protocol.parse(world, "experiments.webshop", ["--policy", "openai/gpt-4o"])
    world.open(arguments, arguments.run_dir)
    policy = world.policy(settings, world.testing)
    assert type(policy).__name__ == "SelectingPolicy" and policy.count == 5 and len(policy.predict.demos) == 2
    assert world.training.judges and not world.testing.judges and world.training.shop is world.testing.shop
    with pytest.raises(StlError):
        world.testing.task("fixed_99999")
