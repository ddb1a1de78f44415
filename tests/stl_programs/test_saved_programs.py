"""Nothing that was found, tuned or set is lost on a way out of a program and back into one."""

from __future__ import annotations

import json

import dspy
import pytest

from optimizers.stl import tuned_value
from signatures import LabelScale, Lookahead, signature_version
from stl_programs import MCTS, BeamSearch, Budget, GreedySearch, LegalMoves, PerDepth, Policy, Uniform, Value, models
from stl_programs.errors import ModelError, StlError
from stl_programs.models.doors.dspy_lm import lm
from stl_programs.saving import build
from tests.contract import random_adapter, tiny_llama
from tests.stl_programs.environments.own_worlds.puzzle import Puzzle, reply
from tests.stl_programs.environments.own_worlds.searches import program, scripted

BOARD = "123_46758"
KEY = "sk-SECRET123456"
DEMO = dspy.Example(augmented=True, task="t", trajectory="", state="1 2", not_allowed=[], count=2, actions=["slide 2"])


@pytest.fixture(scope="module")
def env():
    return Puzzle()


@pytest.fixture(scope="module")
def tuned_name(tmp_path_factory):
    """An adapter of a small model of this process, registered."""
    folder = tmp_path_factory.mktemp("saved")
    base = tiny_llama(folder / "base")
    name = f"local/{base}@value-v1-saved"
    models.register_adapter(name, random_adapter(base, folder / "adapter", 1))
    yield name
    models.unregister_adapter(name)


def found(env, model="openai/x", **options):
    """A program as prompt optimizers leave it: other instructions and demonstrations in both parts."""
    policy = Policy(env.policy_signature, model, count=2)
    search = GreedySearch(env, policy, Value(env.value_signature, model, **options))
    for predictor in search.predictors_asked():
        predictor.signature = predictor.signature.with_instructions(f"BETTER {predictor.role}")
    search.policy.predict.demos = [DEMO]
    return search


def tuned(env, name, search=GreedySearch, **options):
    """A program whose value and policy answer with an adapter."""
    base = name.partition("@")[0]
    policy = Policy(env.policy_signature, base, count=2)
    made = search(env, policy, Value(env.value_signature, base, samples=2), **options)
    made.value = tuned_value(made, name, "lv+tr+r")
    made.policy.predict.adapter = name
    return made


def fresh(env, search=GreedySearch):
    return search(env, Policy(env.policy_signature, "openai/y"), Value(env.value_signature, "openai/y"))


class Outer(dspy.Module):
    """A user's own module around a search."""

    def __init__(self, search):
        super().__init__()
        self.search, self.say = search, dspy.Predict("question -> answer")

    def forward(self, question):
        return dspy.Prediction(answer=self.search(task=question).answer)


def by_file(made, empty, folder):
    made.save(folder / "program.json")
    empty.load(folder / "program.json")
    return empty


def by_state(made, empty, folder):
    empty.load_state(json.loads(json.dumps(made.dump_state())))
    return empty


def by_outer_file(made, empty, folder):
    Outer(made).save(folder / "outer.json")
    outer = Outer(empty)
    outer.load(folder / "outer.json")
    return outer.search


def by_outer_state(made, empty, folder):
    outer = Outer(empty)
    outer.load_state(Outer(made).dump_state())
    return outer.search


def by_deepcopy(made, empty, folder):
    return made.deepcopy()


WAYS = [by_file, by_state, by_outer_file, by_outer_state, by_deepcopy]


@pytest.mark.parametrize("way", WAYS)
def test_instructions_and_demonstrations(env, tmp_path, way):
    loaded = way(found(env), fresh(env), tmp_path)
    assert [p.signature.instructions for p in loaded.predictors_asked()] == ["BETTER policy", "BETTER value"]
    assert [dict(demo) for demo in loaded.policy.predict.demos] == [dict(DEMO)] and not loaded.value.predict.demos
    for one, other in zip(loaded.predictors_asked(), found(env).predictors_asked(), strict=True):
        assert signature_version(one.signature) == signature_version(other.signature)


@pytest.mark.parametrize("way", WAYS)
def test_adapters_of_value_and_policy_with_the_signature_that_they_were_trained_on(env, tmp_path, tuned_name, way):
    loaded = way(tuned(env, tuned_name), fresh(env), tmp_path)
    assert (loaded.value.lm, loaded.policy.lm) == (tuned_name, tuned_name)
    assert list(loaded.value.predict.signature.output_fields) == list(Lookahead.output_fields)
    assert loaded.value.model.name == loaded.policy.predict.model.name == tuned_name
    assert loaded.value.predict.spec == tuned_name.partition("@")[0], "and the base that they belong to"


@pytest.mark.parametrize("way", [by_file, by_state, by_deepcopy])
def test_scale_seed_budget_and_settings(env, tmp_path, way):
    scale = LabelScale((("high", 10.0), ("low", 1.0)))
    made = MCTS(env, Policy(env.policy_signature, "openai/x", count=4, rounds=2, distinct=False, temperature=0.3),
                Value(env.value_signature, "openai/x", samples=5, aggregate="max", scale=scale, rationale="innermost",
                      max_tokens=77, format="chat", budget=Budget(calls=9)),
                simulations=7, selection="puct", backup="hybrid", seed=11, budget=Budget(tokens=1000), expand="all")
    loaded = way(made, fresh(env, MCTS), tmp_path)
    assert loaded.dump_state() == made.dump_state()
    assert (loaded.value.scale, loaded.value.rationale, loaded.value.aggregate) == (scale, "innermost", "max")
    assert (loaded.seed, loaded.budget, loaded.expand_what) == (11, Budget(tokens=1000), "all")
    assert (loaded.simulations, loaded.selection, loaded.backup) == (7, "puct", "hybrid")
    predict = loaded.value.predict
    assert (predict.samples, predict.max_tokens, predict.format, predict.budget) == (5, 77, "chat", Budget(calls=9))
    assert (loaded.policy.count, loaded.policy.rounds, loaded.policy.distinct) == (4, 2, False)
    assert loaded.policy.temperature == 0.3


def test_parts_of_other_kinds_take_their_places(env, tmp_path):
    values = [Value(env.value_signature, f"openai/{i}") for i in range(3)]
    made = BeamSearch(env, LegalMoves(), PerDepth(values), width=3)
    loaded = by_file(made, BeamSearch(env, Policy(env.policy_signature), Uniform()), tmp_path)
    assert isinstance(loaded.policy, LegalMoves) and [value.lm for value in loaded.value.values] == [
        "openai/0", "openai/1", "openai/2"]
    with pytest.raises(StlError, match=r"the saved program is made of .*PerDepth.*; build it of the same parts"):
        by_outer_state(made, BeamSearch(env, LegalMoves(), Uniform()), tmp_path)


@pytest.mark.parametrize("way", [by_file, by_outer_file])
def test_a_connection_is_saved_without_its_secrets(env, tmp_path, way):
    model = lm("hosted_vllm/m", api_base="http://127.0.0.1:1/v1", api_key=KEY, temperature=0.0, max_tokens=77,
               stop=["X"], seed=3)
    made = GreedySearch(env, LegalMoves(), Value(env.value_signature, model))
    assert made.value.predict.sampling == (0.0, 77)
    with pytest.raises(ModelError, match="allow_unsafe_lm_state=True"):
        way(made, GreedySearch(env, LegalMoves(), Value(env.value_signature)), tmp_path)
    written = "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert KEY not in written and "hosted_vllm/m" in written
    same = way(made, GreedySearch(env, LegalMoves(), Value(env.value_signature, model)), tmp_path)
    assert same.value.predict.spec is model, "the object at hand, with its key"
    loaded = GreedySearch(env, LegalMoves(), Value(env.value_signature))
    made.save(tmp_path / "trusted.json")
    loaded.load(tmp_path / "trusted.json", allow_unsafe_lm_state=True)
    assert loaded.value.predict.sampling == (0.0, 77)
    assert loaded.value.model.endpoint == made.value.model.endpoint


def test_a_base_set_again_leaves_the_adapter(env, tuned_name):
    """What BetterTogether does to every predictor after a weight step."""
    made, base = tuned(env, tuned_name), tuned_name.partition("@")[0]
    made.set_lm(lm(base))
    assert made.value.lm == made.policy.lm == tuned_name == made.value.model.name
    made.set_lm(lm("embedded/game24"))
    with pytest.raises(ModelError, match=rf"belongs to {base}, and the predictor's lm is embedded/game24; set the ba"):
        made(task=BOARD)
    made.value.lm = "embedded/game24"
    assert made.value.lm == "embedded/game24", "said to the module itself, it is another model"


def test_resets_and_copies_answer_as_before(env, tmp_path):
    model = scripted(reply)
    made = program("greedy", env, model)
    answer = made(task=BOARD).answer
    outer = Outer(made)
    copies = [made.deepcopy(), made.reset_copy(), by_file(made, program("greedy", env, model), tmp_path),
              by_state(made, program("greedy", env, model), tmp_path)]
    assert answer and [copy(task=BOARD).answer for copy in copies] == [answer] * 4 == [outer(question=BOARD).answer] * 4


def test_what_a_program_is_not_saved_as(env, tmp_path):
    with pytest.raises(StlError, match=r"save_program=True would pickle code; a program is saved as JSON"):
        fresh(env).save(tmp_path / "folder", save_program=True)
    with pytest.raises(StlError, match=r"name a file that ends with \.json"):
        fresh(env).save(tmp_path / "program.pkl")
    with pytest.raises(StlError, match=r"cannot read .*absent\.json: No such file"):
        fresh(env).load(tmp_path / "absent.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(StlError, match=r"list\.json is no saved program: it holds a list"):
        fresh(env).load(tmp_path / "list.json")
    assert not (tmp_path / "folder").exists()


def test_a_name_that_is_taken_is_refused_where_it_is_defined(env):
    with pytest.raises(TypeError, match=r"Policy is a class of stl_programs\.policies\.sampled, and a saved prog"):
        type("Policy", (LegalMoves,), {})
    one, two = (type("Mine", (LegalMoves,), {"settings": ("much",), "much": i}) for i in (1, 2))
    assert type(build(one().dump_state())) is two, "a cell that is run again defines its class anew"


def test_a_prediction_is_json(env):
    outcome = program("greedy", env, scripted(reply))(task=BOARD)
    row = json.loads(json.dumps(outcome.toDict()))
    assert row["answer"] == outcome.answer and row["trajectory"] == outcome.trajectory
    assert row["tree"]["nodes"][0]["state"] == outcome.tree.root.state.text
