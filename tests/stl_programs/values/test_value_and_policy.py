from __future__ import annotations

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signatures.game24 import SCALE, EstimateNumbers, LookaheadNumbers, ProposeMoves
from stl_programs import GreedySearch, LegalMoves, Policy, Value
from stl_programs.engine import run_sync
from stl_programs.errors import StlError
from stl_programs.predictor import Draw
from stl_programs.records import Sample
from stl_programs.situations import Situation
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.simulator import Simulator
from stl_programs.values.base import aggregate
from stl_programs.values.sampled import read_sample

scores = st.lists(st.one_of(st.none(), st.sampled_from([0.001, 1.0, 20.0])), min_size=1, max_size=8)


@given(scores, st.sampled_from(["median", "mean", "max"]))
def test_an_aggregate_is_missing_only_when_nothing_parsed(values, how):
    estimate = aggregate([Sample(v, f"r{v}") for v in values], how)
    parsed = [v for v in values if v is not None]
    assert len(estimate.samples) == len(values)
    assert estimate.missing == (not parsed)
    if parsed:
        assert min(parsed) <= estimate.score <= max(parsed)
        if how != "mean":
            assert estimate.rationale == f"r{estimate.score}"


def test_median_is_the_upper_one_and_keeps_its_rationale():
    samples = [Sample(0.001, "no"), Sample(20.0, "yes"), Sample(None, missing="cut off"), Sample(1.0, "perhaps")]
    assert aggregate(samples, "median").rationale == "perhaps"
    assert aggregate(samples[:2], "median").score == 20.0
    assert aggregate(samples, "max").rationale == "yes"


def test_a_tuned_rationale_names_its_step():
    draw = Draw({"best_action": "4 * 6 = 24", "next_state": "24", "rationale": "end", "score": "sure"})
    assert read_sample(draw, SCALE) == Sample(20.0, "4 * 6 = 24 -> 24 . end")
    terminal = Draw({"best_action": "none", "next_state": "none", "rationale": "end", "score": "maybe"})
    assert read_sample(terminal, SCALE) == Sample(None, "end", "score 'maybe' is not on the scale")


@pytest.mark.parametrize("options", [{"samples": 0}, {"aggregate": "min"}])
def test_bad_value_settings(options):
    with pytest.raises(ValueError):
        Value(EstimateNumbers, "embedded/game24", **options)


def chat(actions):
    return f"[[ ## actions ## ]]\n{actions}\n\n[[ ## completed ## ]]"


def lm(server):
    return dspy.LM("hosted_vllm/m", api_base=server.url, api_key="x")


def test_the_policy_tops_up_and_says_what_not_to_repeat(env):
    replies = ['["4 + 5 = 9", "4 + 5 = 9", "4 + 5 = 10"]', '["5 * 6 = 30", "nonsense"]', '["4 * 6 = 24"]']
    with Simulator(lambda messages, model, seed: chat(replies[len(server.requests)]), ["m"]) as server:
        policy = Policy(ProposeMoves, lm(server), count=3)
        task = env.task("4 5 6 10")
        proposals = run_sync(policy.aforward(Situation(env, task, env.reset(task))))
        prompts = [request["messages"][-1]["content"] for request in server.requests]
    assert [proposal.action.text for proposal in proposals] == ["4 + 5 = 9", "5 * 6 = 30", "4 * 6 = 24"]
    assert len(prompts) == 3 and "4 + 5 = 10" in prompts[1] and "nonsense" in prompts[2]


def test_a_policy_that_says_nonsense_gives_up_honestly(env):
    with Simulator(lambda messages, model, seed: "I do not know", ["m"]) as server:
        program = GreedySearch(env, Policy(ProposeMoves, lm(server), rounds=2), Value(EstimateNumbers, lm(server)))
        prediction = program(task="4 5 6 10")
        assert len(server.requests) == 2
    assert prediction.answer == "4 5 6 10" and prediction.usage["policy"]["parse_failures"] == 2
    assert env.score(env.task("4 5 6 10"), prediction.answer) == 0.0


def test_one_bad_sample_spoils_only_itself(env):
    def reply(messages, model, seed):
        good = "[[ ## rationale ## ]]\nwhy not\n\n[[ ## score ## ]]\nsure\n\n[[ ## completed ## ]]"
        return "cut off [[ ## ratio" if seed % 2 else good

    with Simulator(reply, ["m"]) as server:
        value = Value(EstimateNumbers, lm(server), samples=4)
        task = env.task("4 5 6 10")
        estimate = run_sync(value.estimate(Situation(env, task, env.reset(task))))
        assert len(server.requests) == 1 and server.requests[0]["n"] == 4
    assert [s.score for s in estimate.samples].count(None) == 2 and estimate.score == 20.0


def test_the_bill_equals_the_servers_own_count(env):
    with Simulator(game24_script, ["m"]) as server:
        program = GreedySearch(env, Policy(ProposeMoves, lm(server), count=4), Value(EstimateNumbers, lm(server)))
        usage = program(task="4 5 6 10").usage
    assert sum(u["calls"] for u in usage.values()) == len(server.requests)
    assert sum(u["prompt_tokens"] for u in usage.values()) == server.prompt_tokens
    assert sum(u["completion_tokens"] for u in usage.values()) == server.completion_tokens


def test_optimizers_see_a_trace(env):
    with Simulator(game24_script, ["m"]) as server, dspy.context(trace=[]):
        program = GreedySearch(env, LegalMoves(), Value(EstimateNumbers, lm(server), samples=1))
        assert [name for name, _ in program.named_predictors()] == ["value.predict"]
        program(task="4 5 6 10")
        assert {type(entry[2]) for entry in dspy.settings.trace} == {dspy.Prediction}
        assert dspy.settings.trace[0][0] is program.value.predict


def test_set_lm_is_obeyed(env):
    with Simulator(game24_script, ["m"]) as server:
        program = GreedySearch(env, LegalMoves(), Value(EstimateNumbers, "embedded/game24", samples=1))
        program.set_lm(lm(server))
        program(task="4 5 6 10")
        assert server.requests and program.value.predict.name == "hosted_vllm/m"


def test_no_model_is_one_clear_error(env):
    with pytest.raises(StlError, match="no language model"):
        GreedySearch(env, LegalMoves(), Value(LookaheadNumbers))(task="4 5 6 10")
