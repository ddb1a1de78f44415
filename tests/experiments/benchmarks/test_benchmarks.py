"""The face of the benchmarks, and that each side of the benchmarks beside peers pays for its calls."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.benchmarks import growth, regret
from experiments.benchmarks.face import Row, at_least, at_most, main, median_and_spread
from experiments.benchmarks.peer_searches import PEERS
from experiments.benchmarks.scripts import MOVES, NAMED, world_reply
from stl_programs.testing.simulator import Simulator
from stl_programs.testing.tree_world import TreeWorld


def met():
    """Holds."""
    return [at_least("speed", 12.0, 10, "x", "11 to 13, quartiles of 10"), Row("another library", 3.0, "x")]


def missed():
    return [at_most("overhead", 0.7, 0.5, "ms")]


def broken():
    raise RuntimeError("no server\nat all")


def test_exit_status_and_json(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert main({"met": met}, ["--json", str(file)]) == 0
    assert json.loads(file.read_text()) == [
        {"name": "speed", "figure": 12.0, "unit": "x", "goal": "at least 10", "holds": True,
         "spread": "11 to 13, quartiles of 10"},
        {"name": "another library", "figure": 3.0, "unit": "x", "goal": None, "holds": None, "spread": ""}]
    shown = capsys.readouterr().out
    assert "speed" in shown and "12 x" in shown and "holds" in shown
    assert main({"met": met, "missed": missed}, []) == 1
    assert "missed" in capsys.readouterr().out


def test_a_benchmark_that_fails_is_a_row_that_does_not_hold(tmp_path):
    file = tmp_path / "rows.json"
    assert main({"broken": broken, "met": met}, ["--json", str(file)]) == 1
    first, second, _ = json.loads(file.read_text())
    assert first["name"] == "broken" and first["holds"] is False and first["figure"] is None
    assert first["spread"] == "RuntimeError: no server" and second["holds"]


def test_only_and_list(capsys):
    assert main({"met": met, "broken": broken}, ["--only", "met"]) == 0
    capsys.readouterr()
    assert main({"met": met, "broken": broken}, ["--list"]) == 0
    assert "met" in (shown := capsys.readouterr().out) and "Holds." in shown and "broken" in shown
    with pytest.raises(SystemExit):
        main({"met": met}, ["--only", "other"])


def test_median_and_spread():
    assert median_and_spread(range(1, 12)) == (6.0, "3.5 to 8.5, quartiles of 11")
    with pytest.raises(ValueError, match="at least one"):
        median_and_spread([])
    with pytest.raises(ValueError, match="finite"):
        median_and_spread([1.0, float("nan")])


@pytest.fixture(scope="module")
def world() -> TreeWorld:
    return TreeWorld(depth=4, branching=3, transpositions=0.3)


def test_each_of_our_searches_answers_within_its_calls(world):
    for name, make in regret.ours().items():
        regrets = regret.our_regrets(make, world, range(3), 30)
        assert regrets.shape == (3,) and np.all(regrets >= 0), name


@pytest.mark.parametrize("peer", list(PEERS))
def test_each_search_of_a_peer_answers(world, peer):
    pytest.importorskip(peer)
    for name, answer in PEERS[peer]().items():
        assert np.all(regret.peer_regrets(answer, world, range(2), 40) >= 0), name


def test_more_calls_help(world):
    make = regret.ours()["best-first, 0 a level"]
    few, many = (regret.our_regrets(make, world, range(20), limit).mean() for limit in (15, 120))
    assert many < few


def test_a_reply_names_distinct_moves_of_the_state_at_random():
    replies = {seed: world_reply([{"role": "user", "content": "moves world 3: 1.2"}], "m", seed).split(" ; ")
               for seed in range(20)}
    assert all(len(set(named)) == NAMED and {int(move) for move in named} <= set(range(MOVES))
               for named in replies.values())
    assert len({tuple(named) for named in replies.values()}) > 10


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setattr(growth, "NODES", 64)
    with Simulator(world_reply, ["sim"]) as server:
        yield server


def grown(endpoint, side, judge):
    """What a side reports; the server has to have seen exactly the requests that it counts."""
    endpoint.reset()
    found = side(judge(endpoint, 3))
    assert endpoint.stats()["requests"] == found.judged + found.proposed
    return found


@pytest.mark.parametrize("judge", [growth.Judge, growth.Asking])
def test_ours_retains_what_it_pays_for(endpoint, judge):
    for name, side in growth.our_modes(1, 4).items():
        found = grown(endpoint, side, judge)
        expansions = 64 // judge.count
        assert found.judged == found.retained == expansions * judge.count, name
        assert found.proposed == (0 if judge is growth.Judge else expansions)


@pytest.mark.parametrize("judge", [growth.Judge, growth.Asking, growth.Keeping])
def test_every_side_of_a_peer_pays_for_its_moves_where_moves_are_asked_for(endpoint, judge):
    pytest.importorskip("treequest")
    pytest.importorskip("its_hub")
    for name, side in (growth.treequest_modes() | growth.DOCUMENTED).items():
        found = grown(endpoint, side, judge)
        assert 0 < found.retained <= found.judged, name
        whole = "best of" in name
        if judge is growth.Judge:
            assert found.proposed == 0, name
        elif judge is growth.Asking or whole:
            assert found.proposed == found.judged, name
        else:
            assert found.judged / NAMED <= found.proposed < found.judged, name
