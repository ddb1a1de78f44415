"""Every argument that is out of its range, of another type or NaN is refused where it is passed, in one line."""

from __future__ import annotations

import inspect
import math
from functools import partial

import dspy
import pytest

from optimizers import ChosenTrajectories, LoraSettings, SelfTaughtLookahead
from optimizers.data.lookahead import lookahead
from signatures import JudgeSiblings, LabelScale, NumberScale
from stl_programs import (
    MCTS,
    BeamSearch,
    BestFirstSearch,
    Budget,
    GreedySearch,
    LegalMoves,
    LiteSearch,
    PairwiseValue,
    PartialExpansionSearch,
    Policy,
    Predictor,
    SiblingValue,
    Uniform,
    Value,
    lm,
    run_sync,
    run_tasks,
)
from stl_programs.construct import Count, checked
from stl_programs.environments.game24 import GameOf24
from stl_programs.errors import ModelError, SettingError, StlError
from stl_programs.testing import ScriptedModel, TreeWorld

ENV = TreeWorld(depth=2, branching=2, transpositions=0.0)
NAN = math.nan
WHOLE = [0, -1, NAN, 1.5, "5", True, None, math.inf, [3]]
REAL = [NAN, "0.5", True, [1.0], -1.0]


def of(kind):
    return partial(kind, ENV, LegalMoves(), Uniform())


def running(**options):
    return run_sync(run_tasks(GreedySearch(ENV, LegalMoves(), Uniform()), ["0"], **options))


VALUE, POLICY = partial(Value, ENV.value_signature), partial(Policy, ENV.policy_signature)
CASES = [
    (of(BeamSearch), {"width": WHOLE, "seed": [NAN, "7", True, None, 1.5], "budget": [5, "calls", NAN],
                      "expand": ["some", None, 1]}),
    (of(BestFirstSearch), {"expansions": WHOLE, "parallel": WHOLE, "enough": [NAN],
                           "priority": [None, "value", 1]}),
    (of(LiteSearch), {"expansions": WHOLE, "confidence": [*REAL, 0, 1], "most": WHOLE, "progress": [*REAL, math.inf],
                      "enough": [NAN]}),
    (of(MCTS), {"simulations": WHOLE, "exploration": [*REAL, math.inf], "selection": ["best", 5], "rollout": [1, "yes"],
                "backup": ["least", None], "parallel": WHOLE}),
    (of(PartialExpansionSearch), {"judgements": WHOLE, "progress": [NAN, "1", math.inf], "decay": [*REAL, math.inf],
                                  "parallel": WHOLE, "enough": [NAN]}),
    (POLICY, {"count": WHOLE, "samples": WHOLE, "rounds": WHOLE, "distinct": [1, "no"], "logprobs": [1, None],
              "temperature": [*REAL, 101, math.inf], "max_tokens": WHOLE[:6], "format": ["html", 1], "budget": [5]}),
    (VALUE, {"samples": WHOLE, "aggregate": ["least", None], "rationale": ["long", None], "temperature": [*REAL],
             "max_tokens": WHOLE[:6], "budget": [5]}),
    (partial(SiblingValue, JudgeSiblings), {"aggregate": ["least"], "samples": WHOLE}),
    (partial(PairwiseValue, JudgeSiblings), {"samples": WHOLE}),
    (partial(Predictor, "a -> b"), {"samples": WHOLE, "role": [5, None], "budget": [1]}),
    (Budget, {name: [0, -1, NAN, "5", True, [1]] for name in ("dollars", "tokens", "calls", "states", "seconds")}),
    (SelfTaughtLookahead, {
        "iterations": WHOLE, "tasks_per_iteration": WHOLE, "start": ["here", None], "in_flight": WHOLE,
        "concurrency": WHOLE[:6], "seed": [NAN, "7"], "rollout_aggregate": ["least"], "rollout_samples": WHOLE[:6],
        "expand": ["some"], "gamma": [*REAL, 0, 1.5], "variant": ["tr", 5], "merge": [1], "others_per_top": [NAN, "no"],
        "per_depth": ["yes"], "terminal_states": [1], "share_judgements": [None], "lora": [{"rank": 4}],
        "closed": [1]}),
    (ChosenTrajectories, {"above": [*REAL, 1.5], "iterations": WHOLE}),
    (LoraSettings, {"rank": WHOLE, "alpha": WHOLE, "batch_size": WHOLE, "max_length": WHOLE, "warmup_steps": WHOLE[1:],
                    "learning_rate": [*REAL, 0, math.inf], "weight_decay": [*REAL], "epochs": [*REAL, 0, math.inf],
                    "loss": ["both"], "schedule": [5, "sinus"], "target_modules": ["q_proj", [], [5]]}),
    (partial(lookahead, []), {"gamma": [*REAL, 0, 2]}),
    (running, {"in_flight": WHOLE, "in_flight_total": WHOLE[:6], "concurrency": WHOLE[:6], "retries": WHOLE[1:],
               "backoff": [*REAL, math.inf], "seed": [NAN, True, [1, "2"], [NAN]], "per_endpoint": [{"a": 0}],
               "budget": [5], "offline": [1, "no"], "commit": ["yes"], "keep_trees": [None]}),
]


@pytest.mark.parametrize(("build", "name", "value"), [
    (build, name, value) for build, bad in CASES for name, values in bad.items() for value in values])
def test_what_an_argument_cannot_be_is_refused_in_one_line(build, name, value):
    with pytest.raises((ValueError, TypeError)) as refused:
        build(**{name: value})
    assert name in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 400


MODEL = ScriptedModel("scripted/m", lambda messages, seed: "")
GREEDY = GreedySearch(ENV, LegalMoves(), Uniform())


@pytest.mark.parametrize(("build", "said"), [
    (lambda: lm("hosted_vllm/m", temperature=NAN), "temperature=nan"), (lambda: lm("hosted_vllm/m", n=0), "n=0"),
    (lambda: lm("hosted_vllm/m", max_completion_tokens=NAN), "max_completion_tokens=nan"),
    (lambda: lm("hosted_vllm/m", max_tokens="5"), "max_tokens='5'"), (lambda: lm(5), r"lm\(5\)"),
    (lambda: lm("hosted_vllm/m", api_base=5), "api_base=5"), (lambda: lm("hosted_vllm/m", seed=1.5), "seed=1.5"),
    (lambda: Value(ENV.value_signature, dspy.LM("openai/m", temperature=NAN)).predict.sampling, "temperature=nan"),
    (lambda: Value(None, MODEL), r"Predictor\(signature=None\)"),
    (lambda: Value(ENV.policy_signature, MODEL), "ProposeActions has the outputs actions, and a value reads score"),
    (lambda: Policy(ENV.value_signature, MODEL), "a policy reads actions or action"),
    (lambda: SiblingValue(ENV.value_signature, MODEL), "a value reads scores"),
    (lambda: Value(ENV.value_signature, 5).model, "5"),
    (lambda: GreedySearch(None, LegalMoves(), Uniform()), "environment=NoneType"),
    (lambda: GreedySearch(ENV, Uniform(), LegalMoves()), "policy=Uniform"),
    (lambda: run_sync(run_tasks(GREEDY, "01")), "tasks='01'"), (lambda: run_sync(run_tasks(GREEDY, 5)), "tasks=5"),
    (lambda: run_sync(run_tasks(GREEDY, ["0", None])), "None is no task: pass a Task, its text"),
    (lambda: running(executor=5), "executor=5"), (lambda: NumberScale(1, 1), "low=1, high=1"),
    (lambda: NumberScale(NAN, 1), "low=nan"), (lambda: LabelScale(()), "two different finite worths"),
    (lambda: LabelScale((("sure", NAN), ("no", 0.0))), "two different finite worths"),
    (lambda: GameOf24(split_seed="x"), "split_seed='x'"), (lambda: TreeWorld(depth=NAN), "depth=nan")])
def test_what_does_not_fit_is_refused_where_it_is_passed(build, said):
    with pytest.raises((StlError, ValueError, TypeError), match=said) as refused:
        build()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", [BeamSearch, BestFirstSearch, LiteSearch, MCTS, PartialExpansionSearch, Policy, Value,
                                  SelfTaughtLookahead, ChosenTrajectories, LoraSettings])
def test_every_number_of_a_constructor_is_tried_above(kind):
    [tried] = [bad for build, bad in CASES if getattr(build, "func", build) is kind]
    numbers = {name for name, parameter in inspect.signature(kind).parameters.items()
               if type(parameter.default) in (int, float)}
    assert numbers <= set(tried)


def test_what_was_passed_is_said_and_what_it_may_be():
    with pytest.raises(SettingError, match=r"^BeamSearch\(width=0\): it should be greater than or equal to 1$"):
        of(BeamSearch)(width=0)
    with pytest.raises(SettingError, match=r"^BestFirstSearch\(enough=nan\): "):
        of(BestFirstSearch)(enough=NAN)
    assert of(BestFirstSearch)(enough=math.inf).enough == math.inf


def test_functions_keep_what_they_are():
    @checked
    def keep(width: Count = 5, *rest: int, **named: int) -> int:
        """Says."""
        return width

    assert keep(3, 1, a=2) == 3 and keep.__doc__ == "Says." and inspect.iscoroutinefunction(run_tasks)
    with pytest.raises(TypeError, match="multiple values"):
        keep(1, width=2)


@pytest.mark.parametrize("name", ["chat", "lookahead"])
def test_a_format_that_a_model_here_cannot_read_is_refused_before_any_work(name, tmp_path):
    env = GameOf24()
    program = BeamSearch(env, LegalMoves(), Value(env.value_signature, "embedded/game24", format=name))
    said = rf"^embedded/game24 .*cannot be asked in the format '{name}': leave format= out, .* its own, 'compact'$"
    for work in (lambda: program(task="4 5 6 10"), program.check, lambda: SelfTaughtLookahead(
            run_dir=tmp_path / "run").compile(program, trainset=["4 5 6 10"])):
        with pytest.raises(ModelError, match=said):
            work()
    assert not list(tmp_path.rglob("*.jsonl"))
    BeamSearch(env, LegalMoves(), Value(env.value_signature, "embedded/game24", format="compact")).check()
