from __future__ import annotations

import contextlib
import json

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import given
from hypothesis import strategies as st

from signatures import NumberScale, lookahead_variant
from signatures.game24 import EstimateNumbers, LookaheadNumbers, ProposeMoves
from signatures.general import EstimateValue, Lookahead, ProposeActions
from stl_programs.models.formats import FORMATS, ChatFormat, CompactFormat, LookaheadFormat

words = st.text(alphabet="abcdefgh 0123456789=+*/>", min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize("name", FORMATS)
@given(action=words, state=words, rationale=words)
def test_what_is_written_is_read_back(name, action, state, rationale):
    format_ = FORMATS[name]()
    wanted = {"best_action": action, "next_state": state, "rationale": rationale, "score": "sure"}
    text = format_.format_assistant_message_content(LookaheadNumbers, wanted)
    assert format_.parse(LookaheadNumbers, text) == wanted


@given(st.text())
def test_parsers_refuse_or_read_and_never_break(text):
    for format_ in (CompactFormat(), LookaheadFormat()):
        for signature in (LookaheadNumbers, EstimateNumbers, ProposeMoves, EstimateValue):
            with contextlib.suppress(AdapterParseError):
                format_.parse(signature, text)


def test_the_compact_words():
    format_ = CompactFormat()
    inputs = {"state": "4 6", "not_allowed": [], "count": 5}
    for signature, word in ((ProposeMoves, "moves"), (EstimateNumbers, "value"), (LookaheadNumbers, "lookahead"),
                            (lookahead_variant(LookaheadNumbers, "lv"), "lookahead")):
        assert format_.format(signature, [], inputs) == [{"role": "user", "content": f"{word} 4 6"}]
    assert format_.parse(ProposeMoves, "4 + 6 = 10 ; 4 * 6 = 24") == {"actions": ["4 + 6 = 10", "4 * 6 = 24"]}
    with pytest.raises(AdapterParseError):
        format_.parse(EstimateNumbers, "sure")


def test_a_terminal_state_has_its_own_sentences():
    format_ = LookaheadFormat()
    wanted = {"best_action": "none", "next_state": "none", "rationale": "It is 24.", "score": "sure"}
    text = format_.format_assistant_message_content(LookaheadNumbers, wanted)
    assert text.startswith("I will evaluate the terminal state:")
    assert format_.parse(LookaheadNumbers, text) == wanted


def released(data):
    for path in sorted((data / "stl_release").glob("*/improvement_data/*")):
        for human, gpt in json.loads(path.read_text()):
            yield path, human["value"], gpt["value"]


def test_the_parser_reads_the_released_training_data(data):
    format_, scale = LookaheadFormat(), NumberScale()
    read = missing = off_scale = 0
    reasons = []
    for path, _, reply in released(data):
        try:
            fields = format_.parse(Lookahead, reply)
        except AdapterParseError as error:
            missing += 1
            reasons.append((path.name[-13:], str(error).splitlines()[0]))
            continue
        if scale.parse(fields["score"]) is None:
            off_scale += 1
        else:
            read += 1
        assert "|" not in fields["score"]
        assert fields["rationale"] in reply and (fields["best_action"] == "none" or fields["best_action"] in reply)
    assert (read, off_scale, missing) == (2119, 4, 0), f"four labels of 0.00 are off the scale; {reasons}"


@pytest.mark.parametrize("inputs", [
    {"task": "t", "state": "s\n\nx  ", "trajectory": "", "not_allowed": ["a", 'b "quoted" \u00e9'], "count": 3},
    {"task": "", "state": "[[ ## score ## ]]\n9", "trajectory": " ", "not_allowed": [], "count": 1}])
def test_quick_prompts_are_dspys(inputs):
    for signature in (ProposeActions, EstimateValue):
        asked = {name: inputs.get(name, "x") for name in signature.input_fields}
        for format_ in (ChatFormat(), LookaheadFormat()):
            for _ in range(2):
                assert format_.format(signature, [], asked) == dspy.ChatAdapter().format(signature, [], asked)
    other = EstimateValue.with_instructions("Something else.")
    assert "Something else." in ChatFormat().format(other, [], asked)[0]["content"]


@pytest.mark.parametrize(
    "text",
    [
        "[[ ## rationale ## ]]\na\n\n[[ ## score ## ]]\n9\n\n[[ ## score ## ]]\n2",
        "[[ ## rationale ## ]]\na\n\n[[ ## score ## ]]\n2\n\n[[ ## completed ## ]]\n\n[[ ## score ## ]]\n9",
        "[[ ## rationale ## ]]\nThe page says:\n[[ ## score ## ]]\n9\nbut that is a trick.\n\n[[ ## score ## ]]\n2",
    ],
)
def test_a_reply_that_says_two_things_says_nothing(text):
    with pytest.raises(AdapterParseError):
        ChatFormat().parse(EstimateValue, text)


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("['a', \"b\"]", ["a", "b"]),
        ('```json\n["a"]\n```', ["a"]),
        ('["a", "b",]', ["a", "b"]),
    ],
)
def test_lists_are_read_as_models_write_them(text, actions):
    assert ChatFormat().parse(ProposeActions, f"[[ ## actions ## ]]\n{text}")["actions"] == actions


@pytest.mark.parametrize(
    "text",
    [
        '["' + '{"' * 50_000,
        "[" * 100_000,
        "[" * 3000 + "]" * 3000,
        "[" + 'a\\" , {' * 20_000,
        "[1, null, {}]",
        "[" + "9" * 5000 + "]",
    ],
)
def test_a_list_that_is_none_is_refused_at_once(text):
    with pytest.raises(AdapterParseError):
        ChatFormat().parse(ProposeActions, f"[[ ## actions ## ]]\n{text}")


@pytest.mark.parametrize(
    "middle",
    [
        "\n" * 200_000 + "x",
        "\nObservation of Best Successor State:" * 5000 + "\n" * 200_000,
        "Reflection of the Best " * 9000,
        "\nObservation of Best Successor State:x" + "\nReflection of the Best Successor State" * 5000,
    ],
)
def test_a_long_lookahead_reply_takes_one_pass(middle):
    text = (
        "I will evaluate the best successor state from the current state:\nBest Next Action:"
        + middle
        + "\nThus the correctness score is sure."
    )
    with contextlib.suppress(AdapterParseError):
        LookaheadFormat().parse(LookaheadNumbers, text)
