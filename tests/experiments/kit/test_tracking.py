"""MLflow beside whatever the user does with it, and stores that are damaged or gone."""

from __future__ import annotations

import pytest

from experiments.kit.tracking import MlflowCallback, read_notes
from optimizers import SelfTaughtLookahead
from stl_programs import GameOf24, GreedySearch, LegalMoves, Uniform
from stl_programs.errors import StlError


def test_a_damaged_list_of_runs_is_set_aside_and_said(tmp_path):
    for text in ('{"store": "sqlite:///m', "", "[]", '{"store": "x", "parent": "../x", "children": {}}'):
        path = tmp_path / "mlflow.json"
        path.write_text(text)
        with pytest.warns(RuntimeWarning, match=r"mlflow.json.damaged, and MLflow gets a new run"):
            assert read_notes(path) is None
        assert (tmp_path / "mlflow.json.damaged").read_text() == text and not path.exists()


def test_a_store_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "bad.db").write_bytes(b"x" * 5000)
    for store in (f"sqlite:///{tmp_path}/bad.db", "http://user:hunter2@127.0.0.1:9", "evil://x"):
        callback = MlflowCallback(store=store)
        with pytest.raises(StlError, match="cannot be used") as error:
            callback.on_start(SelfTaughtLookahead(run_dir=tmp_path / "run"), None)
        assert "\n" not in str(error.value) and "hunter2" not in str(error.value)


def test_a_run_of_the_users_own_stays_as_it_is(tmp_path):
    import mlflow

    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mine.db")
        mlflow.set_experiment("mine")
        with mlflow.start_run() as mine:
            callback = MlflowCallback(store=f"sqlite:///{tmp_path}/ours.db")
            env = GameOf24()
            callback.on_start(SelfTaughtLookahead(run_dir=tmp_path / "run"), GreedySearch(env, LegalMoves(), Uniform()))
            callback.log_scores(0, {"score": 1.0})
            assert mlflow.active_run().info.run_id == mine.info.run_id
        with mlflow.start_run() as following:
            assert following.info.experiment_id == mine.info.experiment_id
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/mine.db"
    finally:
        mlflow.set_tracking_uri(before)
