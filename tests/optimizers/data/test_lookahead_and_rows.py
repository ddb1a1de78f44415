from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from optimizers.data.lookahead import LookaheadExample, lookahead
from optimizers.data.rows import build_dataset, load_examples
from signatures.game24 import SCALE, LookaheadNumbers
from stl_programs import BeamSearch, LegalMoves
from stl_programs.engine import run_sync
from stl_programs.environments.game24.world import solvable
from stl_programs.models.formats import ChatFormat, CompactFormat, LookaheadFormat
from tests.conftest import ExactValue, ScriptedValue


def tree_of(env, value, text="1 4 5 6", **options):
    return run_sync(BeamSearch(env, LegalMoves(), value, **options).search(env.task(text))).tree


def test_every_expanded_state_learns_its_best_successor(env):
    tree = tree_of(env, ScriptedValue({"4 5 6": 1.0, "5 24": 20.0}), width=3)
    examples, dropped = lookahead([tree])
    by_state = {e.state: e for e in examples}
    root = by_state["1 4 5 6"]
    assert (root.action, root.next_state, root.target) == ("1 * 4 = 4", "4 5 6", 1.0)
    assert root.rationale == "because 4 5 6" and not dropped
    assert by_state["4 5 6"].action == "4 * 6 = 24" and by_state["4 5 6"].target == 20.0
    assert {e.state for e in examples if not e.terminal} == {n.state.text for n in tree.expanded()}


def test_terminal_states_learn_their_own_value(env):
    tree = tree_of(env, ScriptedValue({"24": 20.0}), width=2)
    terminal = [e for e in lookahead([tree])[0] if e.terminal]
    assert {e.state for e in terminal} == {n.state.text for n in tree.nodes if n.state.terminal}
    assert not [e for e in lookahead([tree], terminal_states=False)[0] if e.terminal]


def test_gamma_discounts_and_is_checked(env):
    tree = tree_of(env, ScriptedValue({"4 5 6": 10.0}), width=1)
    assert lookahead([tree], gamma=0.5)[0][0].target == 5.0
    with pytest.raises(ValueError, match="gamma=0"):
        lookahead([tree], gamma=0)


def test_missing_values_are_dropped_with_their_reason(env):
    tree = tree_of(env, ScriptedValue({"4 5 6": 1.0}, default=None), width=1)
    examples, dropped = lookahead([tree])
    assert [e.state for e in examples] == ["1 4 5 6"]
    assert dropped == Counter({"no successor with an estimate": 1, "the state itself could not be judged":
                               sum(n.estimate is not None and n.estimate.missing for n in tree.nodes)})


def test_closed_states_appear_nowhere(env):
    tree = tree_of(env, ExactValue(), width=5)
    closed = {"4 5 6", "5 24"}
    examples, dropped = lookahead([tree], closed=lambda state: state.text in closed)
    assert not closed & {e.state for e in examples} and not closed & {e.next_state for e in examples}
    assert dropped["closed: the state is held back"] > 0


def test_lookahead_improves_on_the_value_it_came_from(env):
    """One step of lookahead over exact successors is exact: the backup is max."""
    for example in lookahead([tree_of(env, ExactValue(), width=5, expand="all")])[0]:
        from stl_programs.environments.game24.world import parse_numbers

        assert (example.target == 20.0) == solvable(parse_numbers(example.state))


def example(state="4 6", **changes) -> LookaheadExample:
    base = LookaheadExample("1 4 4 6", state, state, "", 2, "4 * 6 = 24", "24", "24", "end", 20.0)
    return replace(base, **changes)


def build(examples, **options):
    options.setdefault("validation_share", 0)
    return build_dataset(examples, LookaheadNumbers, options.pop("format_", CompactFormat()), SCALE, **options)


def test_a_row_is_what_serving_says():
    [row] = build([example()]).rows
    assert row == {"prompt": [{"role": "user", "content": "lookahead 4 6"}],
                   "completion": [{"role": "assistant", "content": "4 * 6 = 24 -> 24 . end | sure"}]}
    [row] = build([example()], format_=LookaheadFormat()).rows
    assert "Best Next Action: 4 * 6 = 24" in row["completion"][0]["content"]


@pytest.mark.parametrize(("variant", "text"), [("lv", "sure"), ("lv+tr", "4 * 6 = 24 -> 24 | sure"),
                                               ("lv+tr+r", "4 * 6 = 24 -> 24 . end | sure")])
def test_variants_say_less_or_more(variant, text):
    assert build([example()], variant=variant).rows[0]["completion"][0]["content"] == text


def test_the_latest_label_of_a_state_wins():
    old, new = example(target=0.001), example()
    dataset = build([new], earlier=[old])
    assert dataset.examples == [new] and dataset.manifest["dropped"] == {"a newer label of the same state": 1}
    assert build([example(rationale="")], earlier=[old]).examples == [old], "a dropped label does not win"


def test_what_cannot_be_said_and_read_back_is_malformed():
    dataset = build([example(), example("3 8", rationale="a | b"), example("2 12", rationale="")])
    assert dataset.manifest["dropped"] == {
        "malformed: rationale contains what the format compact separates its fields by": 1,
        "malformed: rationale is empty": 1}


@pytest.mark.parametrize("field", ["action", "next_state", "rationale"])
@pytest.mark.parametrize("format_", [LookaheadFormat(), ChatFormat(), CompactFormat()])
def test_white_space_at_the_ends_is_no_reason_and_an_empty_field_is_named(format_, field):
    for text in ("page ", " page", "page\n", "page"):
        [row] = build([example(**{field: text})], format_=format_).rows
        assert row == build([example(**{field: "page"})], format_=format_).rows[0]
    said = {"action": "best_action"}.get(field, field)
    with pytest.raises(ValueError, match=f"malformed: {said} is empty"):
        build([example(**{field: " \n"})], format_=format_)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\u2028"])
def test_ends_of_lines_of_any_kind_are_one(end):
    [row] = build([example(next_state=f"a page{end}of two lines")], format_=ChatFormat()).rows
    assert row == build([example(next_state="a page\nof two lines")], format_=ChatFormat()).rows[0]


def test_the_words_of_the_format_in_a_field_are_named():
    with pytest.raises(ValueError, match="malformed: next_state contains what the format lookahead separates its fie"):
        build([example(next_state="Thus the correctness score is 3.")], format_=LookaheadFormat())
    with pytest.raises(ValueError, match="malformed: rationale contains what the format chat separates its fields by"):
        build([example(rationale="so\n[[ ## score ## ]]\n3")], format_=ChatFormat())


def test_equal_keys_of_different_tasks_are_two_rows_unless_values_do_not_depend_on_the_task():
    one, other = example(task="buy a red mug"), example(task="buy a blue lamp", target=0.001)
    assert [e.task for e in build([one, other]).examples] == ["buy a red mug", "buy a blue lamp"]
    dataset = build([one, other], task_free=True)
    assert dataset.examples == [other] and dataset.manifest["dropped"] == {"a newer label of the same state": 1}


def test_filters_are_named_in_the_manifest():
    dataset = build([example(), example("3 8")], filters={"even": lambda e, s: "odd" if "3" in e.state else None})
    assert dataset.manifest["dropped"] == {"even: odd": 1}


def test_balance_keeps_terminal_states():
    others = [example(f"{n} 50", target=0.001) for n in range(10)]
    terminal = [example(str(n), action="none", next_state="none", target=0.001) for n in range(5)]
    dataset = build([example(), example("3 8"), *others, *terminal], others_per_top=0.5)
    assert dataset.manifest["labels"] == {"sure": 2, "impossible": 6}
    assert [reason for reason in dataset.manifest["dropped"] if reason.startswith("balance")]


def test_validation_rows_are_of_other_tasks():
    examples = [example(f"{n} 6", task=f"task {n % 10}") for n in range(100)]
    dataset = build(examples, validation_share=0.2)
    assert len(dataset.validation_rows) == 20 and len(dataset.rows) == 80


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(ValueError, match="malformed"):
        build([example(rationale="")])
    with pytest.raises(ValueError, match="no state has all its successors judged"):
        build([])


def test_a_saved_dataset_is_read_back(tmp_path):
    dataset = build([example(), example("3 8")])
    dataset.save(tmp_path)
    assert load_examples(tmp_path) == dataset.examples
    assert dataset.manifest["sha256"] == build([example(), example("3 8")]).manifest["sha256"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "train.jsonl", "validation.jsonl", "examples.jsonl", "manifest.json"}
