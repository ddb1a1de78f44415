"""What dspy, its callbacks and MLflow see of a search's calls."""

from __future__ import annotations

import asyncio

import dspy
import pytest
from dspy.utils import DummyLM
from dspy.utils.callback import BaseCallback

import stl_programs
from stl_programs import MCTS, BaseValue, GreedySearch, LegalMoves, Policy, Predictor, Value, citizen, run_tasks
from stl_programs.errors import StlError
from stl_programs.models.base import Prices
from stl_programs.records import ValueEstimate
from stl_programs.testing import ScriptedModel
from stl_programs.testing.game24_script import game24_script

TASK = "4 5 6 10"
JUDGED = {"rationale": "r", "score": "sure"}


def player(name="scripted/p", **options):
    return ScriptedModel(name, lambda messages, seed: game24_script(messages, name, seed), **options)


def asking(env, lm, samples=1):
    return GreedySearch(env, Policy(env.policy_signature, lm, count=2, rounds=1),
                        Value(env.value_signature, lm, samples=samples))


# Usage

def billed(prediction):
    return tuple(sum(one[name] for one in prediction.usage.values()) for name in ("prompt_tokens", "completion_tokens"))


def test_a_usage_tracker_sees_what_the_models_served(env):
    model = player()
    with dspy.track_usage() as tracker:
        prediction = asking(env, model)(task=TASK)
    seen = tracker.get_total_tokens()["scripted/p"]
    assert (seen["prompt_tokens"], seen["completion_tokens"]) == (model.prompt_tokens, model.completion_tokens)
    assert billed(prediction) == (model.prompt_tokens, model.completion_tokens) and model.prompt_tokens
    assert seen["total_tokens"] == sum(billed(prediction))


def test_a_prediction_says_its_usage_where_dspy_tracks_it(env):
    model = player()
    with dspy.context(track_usage=True):
        usage = asking(env, model)(task=TASK).get_lm_usage()
    assert usage["scripted/p"]["prompt_tokens"] == model.prompt_tokens > 0


def test_usage_is_seen_inside_a_running_loop_and_from_async_code(env):
    async def main():
        model = player()
        with dspy.track_usage() as tracker:
            asking(env, model)(task=TASK)
            await asking(env, model).acall(task=TASK)
        assert tracker.get_total_tokens()["scripted/p"]["prompt_tokens"] == model.prompt_tokens > 0

    asyncio.run(main())


def test_usage_of_a_run_is_seen_and_what_a_journal_answers_is_not(env, tmp_path):
    model = player()
    with dspy.track_usage() as first:
        stl_programs.run_sync(run_tasks(asking(env, model), [TASK], journal=tmp_path / "j"))
    with dspy.track_usage() as second:
        stl_programs.run_sync(run_tasks(asking(env, model), [TASK], recorded=[tmp_path / "j"], offline=True))
    assert first.get_total_tokens()["scripted/p"]["prompt_tokens"] == model.prompt_tokens > 0
    assert second.get_total_tokens() == {}


class Engine:
    """A dspy engine that says "sure" for 7 prompt tokens and 3 others."""

    supports_response_schema, supported_params = False, frozenset({"temperature", "max_tokens"})

    def complete(self, request):
        said = "[[ ## rationale ## ]]\nr\n\n[[ ## score ## ]]\nsure\n\n[[ ## completed ## ]]"
        return dspy.lm15.Response(id=None, model="counting/lm", message=dspy.lm15.Message.assistant(said),
                                  finish_reason="stop", usage=dspy.lm15.Usage(input_tokens=7, output_tokens=3))


class AsyncEngine(Engine):
    async def complete(self, request):
        return super().complete(request)


def test_calls_that_dspy_makes_itself_are_counted_once(env):
    lm = dspy.LM("counting/lm", engine=Engine(), async_engine=AsyncEngine(), cache=False)
    with dspy.track_usage() as tracker:
        prediction = GreedySearch(env, LegalMoves(), Value(env.value_signature, lm, samples=1))(task=TASK)
    seen = tracker.get_total_tokens()["counting/lm"]
    assert seen["prompt_tokens"] == prediction.usage["value"]["prompt_tokens"] > 0


# History

def test_calls_stand_in_the_histories_of_the_lm_and_of_the_program(env, capsys):
    lm = stl_programs.lm("embedded/game24")
    program = GreedySearch(env, LegalMoves(), Value(env.value_signature, lm, samples=2))
    prediction = program(task=TASK)
    calls = prediction.usage["value"]["calls"]
    assert len(lm.history) == len(program.history) == calls > 0
    entry = lm.history[-1]
    assert len(entry["outputs"]) == 2 and entry["cost"] == 0.0 and entry["model"] == "embedded/game24"
    program.inspect_history(1)
    dspy.inspect_history(1)
    shown = capsys.readouterr().out
    assert shown.count(entry["outputs"][0].splitlines()[-1]) >= 2


def test_a_predictor_that_is_called_alone_keeps_its_call_once(env):
    model = player(prices=Prices(1.0, 1.0, 1.0))
    predictor = Predictor(env.value_signature, model)
    assert predictor(state="4 6").score
    assert len(predictor.history) == 1 and predictor.history[0]["cost"] == model.prompt_tokens + model.completion_tokens


def test_histories_and_traces_are_kept_only_where_dspy_keeps_them(env):
    model, program = player(), asking(env, player())
    with dspy.context(disable_history=True, trace=None):
        program(task=TASK)
    assert program.history == [] and program.value.predict.history == []
    program = asking(env, model)
    with dspy.context(trace=[]):
        program(task=TASK)
        trace = dspy.settings.trace
    assert {id(one) for one, _, _ in trace} == {id(program.policy.predict), id(program.value.predict)}
    assert all(set(prediction.keys()) <= set(one.signature.output_fields) for one, _, prediction in trace)


# Callbacks

class Watch(BaseCallback):
    def __init__(self):
        self.seen, self.open = [], []

    def on_module_start(self, call_id, instance, inputs):
        self.seen.append((type(instance).__name__, inputs.get("role")))
        self.open.append(call_id)

    def on_module_end(self, call_id, outputs, exception=None):
        self.open.remove(call_id)

    def on_lm_start(self, call_id, instance, inputs):
        self.seen.append(("lm", instance.model))
        self.open.append(call_id)

    def on_lm_end(self, call_id, outputs, exception=None):
        assert exception is not None or outputs
        self.open.remove(call_id)


def test_callbacks_see_policy_and_value_calls_with_their_models(env):
    watch = Watch()
    with dspy.context(callbacks=[watch]):
        prediction = asking(env, player())(task=TASK)
    calls = {role: usage["calls"] for role, usage in prediction.usage.items() if usage["calls"]}
    assert watch.seen.count(("GreedySearch", None)) == 1 and watch.open == [] and set(calls) == {"policy", "value"}
    assert all(watch.seen.count(("Predictor", role)) == count for role, count in calls.items())
    assert watch.seen.count(("lm", "scripted/p")) == sum(calls.values()) and prediction.notes == {}


def test_callbacks_of_one_lm_are_told_of_its_calls(env):
    watch = Watch()
    lm = stl_programs.lm("embedded/game24", callbacks=[watch])
    prediction = GreedySearch(env, LegalMoves(), Value(env.value_signature, lm, samples=1))(task=TASK)
    usage = prediction.usage["value"]
    assert watch.seen == [("lm", "embedded/game24")] * (usage["calls"] + usage["out_of_range"]) and not watch.open


def test_a_predictor_called_alone_is_shown_once_and_always(env, monkeypatch):
    monkeypatch.setattr(citizen, "SHOWN_CALLS", 0)
    watch = Watch()
    with dspy.context(callbacks=[watch]):
        Predictor(env.value_signature, player())(state="4 6")
    assert watch.seen == [("Predictor", None), ("lm", "scripted/p")] and not watch.open


@pytest.mark.parametrize("through_dspy", [False, True])
def test_a_large_search_shows_a_bounded_number_of_calls(env, monkeypatch, through_dspy):
    monkeypatch.setattr(citizen, "SHOWN_CALLS", 5)
    lm, watch = DummyLM([JUDGED] * 500) if through_dspy else player(), Watch()
    with dspy.context(callbacks=[watch]):
        prediction = GreedySearch(env, LegalMoves(), Value(env.value_signature, lm, samples=1))(task=TASK)
    assert prediction.usage["value"]["calls"] > 10
    assert len([name for name, _ in watch.seen if name == "Predictor"]) == 5
    assert len([name for name, _ in watch.seen if name == "lm"]) == 5 and not watch.open


def test_a_callback_that_fails_spoils_no_search_and_is_noted(env):
    class Broken(BaseCallback):
        def on_lm_start(self, call_id, instance, inputs):
            raise RuntimeError("mine")

    with dspy.context(callbacks=[Broken()]):
        prediction = asking(env, player())(task=TASK)
    assert prediction.answer and prediction.notes["the callback Broken failed: mine"] > 0


def test_a_call_that_fails_ends_what_callbacks_saw_begin(env):
    def refuse(messages, seed):
        raise stl_programs.errors.ModelError("no such model")

    watch = Watch()
    with dspy.context(callbacks=[watch]), pytest.raises(StlError, match="no such model"):
        asking(env, ScriptedModel("scripted/none", refuse))(task=TASK)
    assert watch.seen and not watch.open


# MLflow

@pytest.fixture
def traces(tmp_path):
    """Turns dspy's autologging on for a store of its own, and reads the traces."""
    mlflow = pytest.importorskip("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("traces", (tmp_path / "artifacts").as_uri()))
    callbacks = dspy.settings.callbacks
    mlflow.dspy.autolog()

    def read():
        mlflow.flush_trace_async_logging()
        return mlflow.search_traces(return_type="list")

    yield read
    mlflow.dspy.autolog(disable=True)
    dspy.settings.configure(callbacks=callbacks)
    mlflow.set_tracking_uri(before)


def of_role(trace, role):
    return [span for span in trace.data.spans if (span.inputs or {}).get("role") == role]


def test_mlflow_shows_policy_and_value_calls_in_one_trace(env, traces):
    prediction = asking(env, player())(task=TASK)
    [trace] = traces()
    spans = {span.span_id: span for span in trace.data.spans}
    [root] = [span for span in trace.data.spans if span.parent_id is None]
    assert root.name == "GreedySearch.forward" and root.outputs["answer"] == prediction.answer
    for role in ("policy", "value"):
        shown = of_role(trace, role)
        assert len(shown) == prediction.usage[role]["calls"] > 0
        assert all(spans[span.parent_id] is root and span.outputs for span in shown)
    models = [span for span in trace.data.spans if span.attributes.get("model") == "scripted/p"]
    assert len(models) == sum(usage["calls"] for usage in prediction.usage.values())
    assert {(spans[span.parent_id].inputs or {})["role"] for span in models} == {"policy", "value"}


def test_mlflow_is_not_drowned_by_a_large_search(env, traces, monkeypatch):
    monkeypatch.setattr(citizen, "SHOWN_CALLS", 8)
    prediction = MCTS(env, Policy(env.policy_signature, player(), count=3),
                      Value(env.value_signature, player(), samples=1), simulations=12)(task=TASK)
    [trace] = traces()
    assert sum(usage["calls"] for usage in prediction.usage.values()) > 20
    assert len(of_role(trace, "policy")) + len(of_role(trace, "value")) == 8
    assert len(trace.data.spans) <= 1 + 8 * 8


# A user's own part that asks by plain dspy

class Asking(BaseValue):
    """Judges by a dspy.ChainOfThought."""

    def __init__(self):
        super().__init__()
        self.think = dspy.ChainOfThought("state -> worth: float")

    async def estimate(self, situation):
        said = await self.think.acall(state=situation.state.text)
        return ValueEstimate(said.worth, said.reasoning)


def test_plain_dspy_modules_inside_of_a_part_work_and_are_saved_with_the_program(env, tmp_path):
    program = GreedySearch(env, LegalMoves(), Asking())
    program.value.think.predict.signature = program.value.think.predict.signature.with_instructions("Be strict.")
    program.value.think.predict.demos = [dspy.Example(state="1 24", reasoning="near", worth=1.0)]
    lm = DummyLM([{"reasoning": "r", "worth": "2.0"}] * 500)
    with dspy.context(lm=lm):
        assert program(task=TASK).answer
    assert "Be strict." in lm.history[-1]["messages"][0]["content"]
    program.save(tmp_path / "p.json")
    again = GreedySearch(env, LegalMoves(), Asking())
    again.load(tmp_path / "p.json")
    assert again.value.think.predict.signature.instructions == "Be strict."
    assert [demo["worth"] for demo in again.value.think.predict.demos] == [1.0]
    other = GreedySearch(env, LegalMoves(), stl_programs.Uniform())
    other.load(tmp_path / "p.json")  # the part is built as its class builds it
    assert other.value.think.predict.signature.instructions == "Be strict."


def test_plain_dspy_modules_are_refused_only_where_a_budget_would_not_count_them(env):
    lm = DummyLM([{"reasoning": "r", "worth": "2.0"}] * 500)
    with dspy.context(lm=lm):
        for budget in (stl_programs.Budget(states=3), stl_programs.Budget(seconds=60.0)):
            assert GreedySearch(env, LegalMoves(), Asking(), budget=budget)(task=TASK).answer
        asked = len(lm.history)
        limits = stl_programs.Budget(calls=9)
        with pytest.raises(StlError, match=r"plain dspy.Predict, whose calls no budget counts") as error:
            GreedySearch(env, LegalMoves(), Asking(), budget=limits)(task=TASK)
        with pytest.raises(StlError, match=r"plain dspy.Predict, whose calls no budget counts"):
            stl_programs.run_sync(run_tasks(GreedySearch(env, LegalMoves(), Asking()), [TASK], budget=limits))
    assert "\n" not in str(error.value) and len(lm.history) == asked
