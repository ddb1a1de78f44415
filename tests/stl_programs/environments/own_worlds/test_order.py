"""Calls that overlap end in any order; what a search finds, and how its tree is numbered, does not depend on it."""

from __future__ import annotations

import random

import pytest

from stl_programs import run_sync, run_tasks
from stl_programs.records import State, Task
from stl_programs.testing.scripted import ScriptedModel
from stl_programs.tree import Tree
from tests.stl_programs.environments.own_worlds.puzzle import Puzzle
from tests.stl_programs.environments.own_worlds.puzzle import reply as slide
from tests.stl_programs.environments.own_worlds.searches import SEARCHES, program, scripted
from tests.stl_programs.environments.own_worlds.word_problems import WordProblems
from tests.stl_programs.environments.own_worlds.word_problems import reply as reason


def late(reply, seed: int) -> ScriptedModel:
    model = scripted(reply)
    model.latency = lambda draw: random.Random(seed * 7919 + draw).choice([0.0, 0.001, 0.004])
    return model


@pytest.mark.parametrize("expand", ["kept", "all"])
@pytest.mark.parametrize("name", [name for name in SEARCHES if "parallel" not in name])
@pytest.mark.parametrize(("world", "reply"), [(Puzzle, slide), (WordProblems, reason)])
def test_trees_are_the_same_however_long_the_calls_take(world, reply, name, expand):
    env = world()
    tasks, found = env.tasks("test")[:2], []
    for seed in (None, 1):
        model = scripted(reply) if seed is None else late(reply, seed)
        results = run_sync(run_tasks(program(name, env, model, expand=expand), tasks, keep_trees=True))
        found.append([{key: row for key, row in result.tree.items() if key != "nodes"} | {
            "nodes": [{name: of for name, of in node.items() if name != "cost"} for node in result.tree["nodes"]]}
            for result in results])
    assert found[0] == found[1] and len(found[0][0]["nodes"]) > 3


def test_the_newest_nodes_are_numbered_anew_and_the_rest_stays():
    tree = Tree(Task("t", "t"), State("root"))
    old = [tree.add(tree.root, f"{i}", State(f"old {i}")) for i in range(2)]
    late, soon = (tree.add(parent, "a", State(text)) for parent, text in zip(old, ("late", "soon"), strict=True))
    more = [tree.add(tree.root, f"{i}", State(f"more {i}")) for i in range(70)]
    order = [*more, soon, late]
    tree.renumber(order)
    assert [node.id for node in tree.nodes] == list(range(len(tree))) and tree.nodes[3:] == order
    assert tree.children(tree.root) == [*old, *more] and [tree.children(node) for node in old] == [[late], [soon]]
    assert Tree.from_dict(tree.to_dict()).to_dict() == tree.to_dict()
