"""Training the policy on the trajectories that searches chose: the data step, and a real training."""

from __future__ import annotations

import json

import pytest

from optimizers import ChosenTrajectories, LoraSettings
from stl_programs import BeamSearch, GreedySearch, LegalMoves, Policy, Uniform, models, run_sync, run_tasks
from stl_programs.errors import ModelError, StlError
from stl_programs.tree import Tree
from tests.conftest import ExactValue
from tests.stl_programs.environments.own_worlds.prompts import CHAT
from tests.stl_programs.environments.own_worlds.searches import program, scripted
from tests.stl_programs.environments.own_worlds.word_problems import WordProblems, reply

QUICK = LoraSettings(epochs=8, learning_rate=3e-3, batch_size=16, max_length=64)


def chosen(student, **options):
    results = run_sync(run_tasks(student, student.environment.tasks("train"), keep_trees=True))
    optimizer = ChosenTrajectories(**options)
    return optimizer.datasets(student, results, 1), [Tree.from_dict(result.tree) for result in results]


def test_a_row_per_chosen_step_in_the_words_of_the_policys_own_question():
    env = WordProblems()
    student = program("beam", env, scripted(reply))
    found, trees = chosen(student, above=0.5)
    dataset = found[None]
    steps = [(tree.task.text, action) for tree in trees
             for action in tree.nodes[tree.about["chosen"]].state.history]
    rows = [(dict(CHAT.findall(row["prompt"][-1]["content"])), dict(CHAT.findall(row["completion"][0]["content"])))
            for row in dataset.rows]
    assert [(into["task"].strip(), json.loads(out["actions"])) for into, out in rows] == [
        (task, [action]) for task, action in steps]
    assert all(set(into) == set(env.policy_signature.input_fields) for into, _ in rows)
    assert dataset.manifest["rows"] == len(steps) and dataset.manifest["format"] == "chat"


def test_what_is_not_worth_it_or_not_finished_is_counted_by_its_reason():
    env = WordProblems()
    with pytest.raises(StlError, match=r"no chosen trajectory is left of 6 rollouts: \{'the chosen leaf is worth less"):
        chosen(GreedySearch(env, Policy(env.policy_signature, scripted(reply)), Uniform()), above=0.5)
    with pytest.raises(StlError, match="'the trajectory is not finished': 6"):
        chosen(program("greedy", env, scripted(lambda *_: "no")))
    with pytest.raises(ValueError, match="above=2"):
        ChosenTrajectories(above=2)


def test_it_reads_no_reward(monkeypatch):
    env = WordProblems()
    monkeypatch.setattr(WordProblems, "_score", None)
    assert chosen(program("beam", env, scripted(reply)))[0][None].rows


def test_a_program_whose_policy_is_no_model_is_refused(env):
    with pytest.raises(ModelError, match="the program's policy is LegalMoves; a Policy is tuned"):
        ChosenTrajectories().compile(BeamSearch(env, LegalMoves(), Uniform()), trainset=["4 5 6 10"])


@pytest.fixture(scope="module")
def compiled(env, tmp_path_factory):
    """A student whose policy is the embedded model, and what came of training it."""
    policy = Policy(env.policy_signature, "embedded/game24", count=8, samples=2)
    student = BeamSearch(env, policy, ExactValue(), width=3)
    folder = tmp_path_factory.mktemp("imitation")
    optimizer = ChosenTrajectories(tasks_per_iteration=8, above=0.9, run_dir=folder, lora=QUICK)
    return student, optimizer.compile(student, trainset=env.tasks("train")), folder


def test_the_policy_is_tuned_and_the_value_left_alone(env, compiled, tmp_path):
    student, tuned, folder = compiled
    assert tuned.policy.lm.startswith("embedded/game24@policy-v1-") and student.policy.lm == "embedded/game24"
    assert type(tuned.value) is ExactValue and tuned(task="4 5 6 10").usage["policy"]["calls"] > 0
    record = json.loads((folder / "adapter-1" / "provenance.json").read_text())
    assert record["losses"][-1] < record["losses"][0] and record["format"] == "compact"
    tuned.save(tmp_path / "program.json")
    loaded = BeamSearch(env, LegalMoves(), ExactValue())
    loaded.load(tmp_path / "program.json")
    assert loaded.policy.lm == tuned.policy.lm and loaded(task="4 5 6 10").answer == tuned(task="4 5 6 10").answer


def test_the_tuned_policy_says_the_chosen_steps_more_often(compiled):
    _, tuned, folder = compiled
    rows = [json.loads(line) for line in (folder / "data-1" / "train.jsonl").read_text().splitlines()]
    assert rows

    def hits(name):
        model, count = models.load(name), 0
        for row in rows[:12]:
            request = models.Request(row["prompt"], tuple(range(8)), max_tokens=60)
            count += sum(text.startswith(row["completion"][0]["content"])
                         for text in run_sync(model.complete(request)).texts)
        return count

    assert hits(tuned.policy.lm) > hits("embedded/game24")
