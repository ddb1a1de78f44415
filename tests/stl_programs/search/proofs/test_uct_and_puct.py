"""UCT and PUCT are one search with two of the same parts, and select what the formulas say."""

from __future__ import annotations

from math import log, sqrt

import pytest

from stl_programs import MCTS, GameOf24, Policy, Uniform, run_sync
from stl_programs.search.parts import highest, mean, puct, uct
from tests.stl_programs.search.proofs.letters import Letters, Likely, Table, expanded

WORTH = {"a": 0.4, "b": 0.6, "aa": 0.1, "ab": 0.2, "ba": 0.3, "bb": 0.3}
LIKES_B = {"a": 0.1, "b": 0.9}
LIKES_A = {"a": 0.9, "b": 0.1}


def searched(odds=LIKES_B, **options):
    env = Letters()
    return run_sync(MCTS(env, Likely(odds), Table(WORTH), **options).search(env.task("ab"))).tree


def test_the_scores_after_one_simulation_are_those_on_paper():
    """Root expanded, b was best and backed up: N = 1, n_a = 0, n_b = 1; a node's own estimate is its first visit."""
    root, (a, b) = (tree := searched(simulations=1)).root, tree.children(tree.root)
    assert (root.visits, a.visits, b.visits, b.value_sum) == (1, 0, 1, 0.6)
    assert (a.prior, b.prior) == (pytest.approx(0.1), pytest.approx(0.9))
    assert mean([a, b]) == [0.4, pytest.approx((0.6 + 0.6) / 2)]
    assert uct(root, [a, b], [0.4, 0.6], 1.0) == pytest.approx([0.4 + sqrt(2 * log(2)), 0.6 + sqrt(2 * log(2) / 2)])
    assert puct(root, [a, b], [0.4, 0.6], 1.0) == pytest.approx([0.4 + sqrt(2) * 0.1, 0.6 + sqrt(2) * 0.9 / 2])


@pytest.mark.parametrize(("selection", "odds", "c", "second"), [
    ("uct", LIKES_B, 1.0, "a"),     # 0.4 + 1.177 = 1.577 against 0.6 + 0.833 = 1.433: the unvisited one
    ("uct", LIKES_B, 0.1, "b"),     # 0.518 against 0.683
    ("puct", LIKES_B, 1.0, "b"),    # 0.4 + 0.141 = 0.541 against 0.6 + 0.636 = 1.236
    ("puct", LIKES_A, 1.0, "a"),    # 0.4 + 1.273 = 1.673 against 0.6 + 0.071 = 0.671
    ("puct", LIKES_A, 0.1, "b")])   # 0.527 against 0.607
def test_the_second_simulation_goes_where_the_formula_says(selection, odds, c, second):
    for rule in (selection, {"uct": uct, "puct": puct}[selection]):  # by its name, or the function itself
        tree = searched(odds, simulations=2, selection=rule, exploration=c)
        assert expanded(tree) == ["", second]


def test_the_third_weighs_what_was_backed_up():
    """UCT, c = 1: a was expanded with best ab = 0.2, so Q_a = (0.4 + 0.2) / 2 = 0.3, N = 2, n_a = n_b = 1."""
    tree = searched(simulations=2)
    a, b = tree.children(tree.root)
    assert mean([a, b]) == [pytest.approx(0.3), pytest.approx(0.6)] and highest([a, b]) == [0.2, 0.6]
    bonus = sqrt(2 * log(3) / 2)
    assert uct(tree.root, [a, b], mean([a, b]), 1.0) == pytest.approx([0.3 + bonus, 0.6 + bonus])
    assert expanded(searched(simulations=3)) == ["", "a", "b"]


def test_a_rule_of_ones_own_is_a_function():
    def last(parent, children, q, c):
        return list(range(len(children)))

    assert expanded(searched(LIKES_A, simulations=2, selection=last)) == ["", "b"]


def test_priors_are_the_policys_own_log_probabilities():
    env = GameOf24()
    policy = Policy(env.policy_signature, "embedded/game24", count=12, samples=4, logprobs=True)
    tree = MCTS(env, policy, Uniform(), selection="puct", simulations=2)(task="4 5 6 10").tree
    children = tree.children(tree.root)
    assert len(children) > 1 and sum(child.prior for child in children) == pytest.approx(1.0)
    by_prior = sorted(children, key=lambda child: child.prior)
    assert by_prior == sorted(children, key=lambda child: child.logprob)
    assert by_prior[-1].prior > by_prior[0].prior and all(child.logprob < 0 for child in children)
