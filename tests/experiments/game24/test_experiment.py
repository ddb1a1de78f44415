"""The experiment as a user runs it: small, whole, on the embedded model and on a served one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from experiments.game24 import experiment as game24
from experiments.game24.settings import published_list
from experiments.kit import report, tables
from experiments.kit.command import guarded
from stl_programs import models
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.simulator import Simulator

ROOT = Path(__file__).parents[3]
SMALL = ["--limit", "4", "--tasks", "4", "--iterations", "1", "--epochs", "1", "--csv", "", "--filter", "none"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    store = f"sqlite:///{folder}/mlflow.db"
    command = [sys.executable, "-m", "experiments.game24", *SMALL, "--run-dir", str(folder / "run"),
               "--mlflow", store]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, command


@pytest.mark.slow
def test_it_prints_a_table_and_what_to_type_next(small):
    _, printed, _ = small
    for row in ("uniform", "V0", "V0, 8 samples", "V1", "oracle", "make ui", "docs/tutorial.md"):
        assert row in printed


@pytest.mark.slow
def test_rollouts_that_failed_are_in_the_table(small):
    summary = report.read(small[0] / "run")
    assert summary["rollouts"] == [{"row": "V1", "n": 4, "failed": 0}]
    summary["rollouts"] = [{"row": "V1", "n": 8, "failed": 3}]
    assert "Rollouts: 8 for V1 (3 failed)" in tables.markdown(summary)


@pytest.mark.slow
def test_the_summary_holds_every_outcome_behind_the_table(small):
    summary = json.loads((small[0] / "run" / "summary.json").read_text())
    assert summary["schema"] == report.SCHEMA and summary["information"] == "reward-free"
    assert {row["row"] for row in summary["rows"]} == {
        "uniform", "V0", "V0, 8 samples", "V1", "V1, policy embedded/game24", "oracle"}
    for row in summary["rows"]:
        outcomes = [o for per_seed in row["outcomes"] for o in per_seed]
        assert row["n"] == len(outcomes) == 4
        assert row["success_rate"]["mean"] == sum(o["solved"] for o in outcomes) / 4 == row["score"]["mean"]
        assert {o["task"] for o in outcomes} and row["failures"] == 0
    oracle = [row for row in summary["rows"] if row["row"] == "oracle"]
    assert [row["success_rate"]["mean"] for row in oracle] == [1.0, 1.0] and oracle[0]["information"] == "reward-guided"


@pytest.mark.slow
def test_documented_keys_are_the_keys(small):
    summary = json.loads((small[0] / "run" / "summary.json").read_text())
    schema = (ROOT / "docs" / "summary.md").read_text()
    for key in [*summary, *summary["rows"][1], *summary["rows"][1]["outcomes"][0][0]]:
        assert f"`{key}`" in schema, key


@pytest.mark.slow
def test_running_again_does_no_work_and_says_the_same(small):
    folder, _, command = small
    before = json.loads((folder / "run" / "summary.json").read_text())
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "going on after the last finished" in done.stdout
    after = json.loads((folder / "run" / "summary.json").read_text())
    assert after["rows"] == before["rows"]


@pytest.mark.slow
def test_mlflow_holds_the_compile(small):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{small[0]}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("game24").experiment_id], order_by=["start_time ASC"])
    parent, child = runs[0], next(run for run in runs if run.info.run_name == "iteration 1")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.inputs.dataset_inputs[0].dataset.name == "lookahead-1"
    assert child.data.metrics["rows_kept"] > 0 and "rollout/value/prompt_tokens" in child.data.metrics
    assert "test_ beam 5" in child.data.metrics and "loss" in child.data.metrics
    names = {artifact.path for artifact in client.list_artifacts(child.info.run_id)}
    assert {"adapter", "data", "tree.html", "costs.json"} <= names
    costs = json.loads(Path(client.download_artifacts(parent.info.run_id, "costs.json")).read_text())
    summary = json.loads((small[0] / "run" / "summary.json").read_text())
    assert [dict(zip(costs["columns"], row, strict=True)) for row in costs["data"]] == summary["costs"]
    page = Path(client.download_artifacts(child.info.run_id, "tree.html")).read_text()
    parser = HTMLParser()
    parser.feed(page)
    assert "application/json" in page


@pytest.mark.parametrize(("arguments", "why"), [
    (["--value", "gpt-4o"], "names no provider"),
    (["--value", "openai/gpt-4o"], "OPENAI_API_KEY"),
    (["--value", "hosted_vllm/m"], "HOSTED_VLLM_API_BASE"),
    (["--policy", "openai/gpt-4o"], "OPENAI_API_KEY"),
    (["--csv", "/no/such.csv"], "cannot read"),
    (["--value", "embedded/chess"], "there is embedded/game24")])
def test_what_cannot_work_is_one_line_before_any_work(arguments, why, tmp_path, monkeypatch, capsys):
    for variable in ("OPENAI_API_KEY", "HOSTED_VLLM_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    code = game24.main([*SMALL, "--run-dir", str(tmp_path / "run"), "--mlflow", "", *arguments])
    error = capsys.readouterr().err
    assert code == 1 and why in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_data_is_looked_for_only_where_one_says(tmp_path, monkeypatch):
    (tmp_path / "shared" / "data" / "game24").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    csv = tmp_path / "shared" / "data" / "game24" / "24.csv"
    csv.touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("STL_DATA", raising=False)
    assert published_list() is None
    monkeypatch.setenv("STL_DATA", str(tmp_path / "here"))
    assert published_list() is None
    monkeypatch.setenv("STL_DATA", str(tmp_path / "shared" / "data"))
    assert published_list() == str(csv)


def test_every_flag_is_explained(capsys):
    with pytest.raises(SystemExit):
        game24.main(["--help"])
    text = capsys.readouterr().out
    assert "--policy" in text and "LiteLLM string" in text and "Default" in text


def test_a_served_model_plays_and_is_tuned(tmp_path, monkeypatch, tiny_chat_model):
    """Policy and value on an OpenAI-compatible server; the LoRA is trained here and loaded there."""
    with Simulator(game24_script, ["policy", "value"]) as server:
        monkeypatch.setenv("HOSTED_VLLM_API_BASE", server.url)
        for name in ("hosted_vllm/policy", "hosted_vllm/value"):
            models.registry._bases.pop(name, None)
        code = game24.main([*SMALL, "--run-dir", str(tmp_path / "run"), "--mlflow", "", "--limit", "1", "--tasks", "1",
                            "--beams", "2", "--expand", "kept", "--policy", "hosted_vllm/policy",
                            "--value", "hosted_vllm/value", "--weights", str(tiny_chat_model),
                            "--learning-rate", "1e-3"])
        assert code == 0
        asked = {request["model"] for request in server.requests}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    tuned = [row for row in summary["rows"] if row["row"] == "V1"]
    assert tuned[0]["value"].startswith("hosted_vllm/value@value-v1-")
    assert asked == {"policy", "value", tuned[0]["value"].removeprefix("hosted_vllm/")}
    assert tuned[0]["policy"] == "hosted_vllm/policy" and tuned[0]["dollars"] is None
    assert tuned[0]["missing"]["parse_failures"] == 0


def test_a_served_model_is_asked_in_the_format_that_is_named(tmp_path, monkeypatch):
    """The embedded model behind a server's name: its own prompts, so that its replies can be read."""
    with Simulator(model="embedded/game24") as server:
        monkeypatch.setenv("HOSTED_VLLM_API_BASE", server.url)
        models.registry._bases.pop("hosted_vllm/game24", None)
        code = game24.main(["--run-dir", str(tmp_path / "run"), "--mlflow", "", "--iterations", "0", "--limit", "1",
                            "--beams", "1", "--value", "hosted_vllm/game24", "--value-format", "compact"])
        assert code == 0
        prompts = {request["messages"][-1]["content"].split()[0] for request in server.requests}
    rows = {row["row"]: row for row in json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]}
    assert prompts == {"value", "moves"}
    judged = rows["V0, policy hosted_vllm/game24"]  # its policy proposes no state that is beyond the model's numbers
    assert judged["failures"] == 0 and set(judged["missing"].values()) == {0}


def test_ctrl_c_that_falls_into_a_callback_still_ends_the_command(tmp_path, capsys):
    class Interrupted:
        def __del__(self):
            raise KeyboardInterrupt  # Python ignores it here, as in the callbacks of a garbage collection

    def work():
        Interrupted()
        time.sleep(5)

    started = time.perf_counter()
    assert guarded(work, tmp_path) == 130 and time.perf_counter() - started < 4
    assert "The same command goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [
    ("--limit", "0"), ("--limit", "-1"), ("--beams", "0"), ("--beams", "1", "-1"), ("--eval-seeds", "0"),
    ("--seed", "-5"), ("--seed", str(2**32)), ("--epochs", "-1"), ("--samples", "0"),
    ("--others-per-top", "nan"), ("--learning-rate", "nan"), ("--learning-rate", "inf"),
    ("--epochs", "nan"), ("--iterations", "-1"), ("--concurrency", "0"), ("--tasks", "x"), ("--samples", "9" * 5000)])
def test_a_flag_out_of_range_is_one_line_before_anything_is_paid(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as ended:
        game24.main([*flags, "--run-dir", str(tmp_path / "run"), "--mlflow", ""])
    assert ended.value.code == 2 and not (tmp_path / "run").exists()
    assert f"argument {flags[0]}" in capsys.readouterr().err.splitlines()[-1]
