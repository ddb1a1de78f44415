"""Tree worlds are what they say: exact optima, the named share of transpositions, canonical keys, counted calls."""

from __future__ import annotations

from itertools import product

import pytest

from stl_programs.engine import run_sync, run_tasks
from stl_programs.errors import TaskError
from stl_programs.records import Action
from stl_programs.search.beam import BeamSearch
from stl_programs.search.best_first import BestFirstSearch
from stl_programs.testing.tree_world import Calls, TreeWorld, WorldPolicy, WorldValue


def states(env: TreeWorld, task):
    """Every state by key, with one way to it each time it is reached."""
    found, level = {}, [env.reset(task)]
    while level:
        for state in level:
            found.setdefault(state.key, []).append(state)
        distinct = {state.key: state for state in level}
        level = [step.state for state in distinct.values() for _, step in env.successors(state)]
    return found


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_the_optimum_is_that_of_brute_force(share):
    env = TreeWorld(depth=4, branching=3, transpositions=share, seed=1)
    for task in env.tasks("train")[:5]:
        worths = [env.worth(task, ".".join(map(str, moves))) for moves in product(range(3), repeat=4)]
        assert env.optimum(task) == max(worths)
        assert all(0 <= worth <= 1 for worth in worths) and len(set(worths)) > 2
        best = ".".join(map(str, list(product(range(3), repeat=4))[worths.index(max(worths))]))
        assert env.regret(task, best) == 0 and env.score(task, best) == 1


def test_inner_values_are_the_best_leaf_below():
    env = TreeWorld(depth=4, branching=3, transpositions=0.3)
    for ways in states(env, env.task("3")).values():
        state = ways[0]
        if not state.terminal:
            below = [env.oracle_value(step.state) for _, step in env.successors(state)]
            assert env.oracle_value(state) == max(below)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_the_share_of_transpositions(share):
    env = TreeWorld(depth=5, branching=5, transpositions=share)
    redirected, successors = 0, 0
    for task in env.tasks("test")[:4]:
        world = env.world(task.text)
        for ways in states(env, task).values():
            path = ways[0].data[1]
            if path and not ways[0].terminal:
                successors += env.branching
                redirected += sum(child != (*path, move) for move, child in enumerate(world.successors(path)))
    assert redirected / successors == pytest.approx(share, abs=0.03)


def test_transpositions_are_reached_by_several_parents_and_are_one_state():
    env = TreeWorld(depth=4, branching=4, transpositions=0.5)
    found = states(env, env.task("0"))
    repeated = [ways for ways in found.values() if len({way.history[:-1] for way in ways}) > 1]
    assert len(repeated) > 5
    for ways in repeated:
        assert len({way.data for way in ways}) == 1 and len({way.text for way in ways}) == 1
        assert len({tuple(step.state.key for _, step in env.successors(way)) for way in ways}) == 1
    plain = TreeWorld(depth=3, branching=3, transpositions=0.0)
    assert all(len(ways) == 1 for ways in states(plain, plain.task("0")).values())


def test_worlds_repeat_and_differ():
    one, same, other = TreeWorld(), TreeWorld(), TreeWorld(seed=1)
    task = one.task("7")
    assert one.optimum(task) == same.optimum(task) != other.optimum(task)
    assert one.optimum(task) != one.optimum(one.task("8"))


def test_bad_tasks_moves_and_settings():
    env = TreeWorld(depth=2, branching=2, transpositions=0.5)
    with pytest.raises(TaskError, match="the number of one"):
        env.task("seven")
    root = env.reset(env.task("0"))
    with pytest.raises(TaskError, match="a number below 2"):
        env.step(root, Action("2"))
    leaf = env.step(env.step(root, Action("0")).state, Action("1")).state
    assert leaf.terminal and env.legal_actions(leaf) == []
    with pytest.raises(TaskError, match="a leaf has none"):
        env.step(leaf, Action("0"))
    assert env.answer(env.task("0"), root) == "0.0"
    with pytest.raises(ValueError, match="from 0 to"):
        TreeWorld(branching=2, transpositions=0.6)


def test_noise_fades_with_depth_and_is_a_function_of_the_state():
    env = TreeWorld(depth=4, branching=4, transpositions=0.2)
    value = WorldValue(0.2, seed=3)
    errors = {depth: [] for depth in range(5)}
    for number in range(20):
        for ways in states(env, env.task(str(number))).values():
            state = ways[0]
            assert value.guess(env, state) == value.guess(env, ways[-1])
            errors[len(state.data[1])].append(abs(value.guess(env, state) - env.oracle_value(state)))
    means = [sum(errors[depth]) / len(errors[depth]) for depth in (1, 2, 3, 4)]
    assert means == sorted(means, reverse=True) and means[-1] > 0
    assert WorldValue(0.0).guess(env, env.reset(env.task("0"))) == env.optimum(env.task("0"))


def test_calls_are_counted_once_per_state_and_end_a_search():
    env = TreeWorld(depth=3, branching=3, transpositions=0.5)
    task, calls = env.task("1"), Calls()
    program = BeamSearch(env, WorldPolicy(calls), WorldValue(0.0, calls=calls), width=100)
    [result] = run_sync(run_tasks(program, [task]))
    distinct = [ways[0] for ways in states(env, task).values()]
    assert calls.made[task.id] == len(distinct) - 1 + sum(not state.terminal for state in distinct)
    assert env.regret(task, result.answer) == 0

    few = Calls(7)
    program = BestFirstSearch(env, WorldPolicy(few), WorldValue(0.0, calls=few), expansions=1000)
    [result] = run_sync(run_tasks(program, [task]))
    assert few.made[task.id] == 7 and "7 calls are spent" in result.ended and result.error is None
