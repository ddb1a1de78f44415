from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signatures import NumberScale, lookahead_variant, lookahead_variant_of, signature_version
from signatures.game24 import SCALE, EstimateNumbers, LookaheadNumbers
from signatures.general import EstimateValue, Lookahead


def test_labels_and_their_worth():
    assert [SCALE.parse(word) for word in ("sure", " Likely.", "IMPOSSIBLE")] == [20.0, 1.0, 0.001]


@pytest.mark.parametrize("text", ["", "maybe", "sure likely", "20", "nan", "impossibly"])
def test_what_is_no_label_is_missing(text):
    assert SCALE.parse(text) is None


@pytest.mark.parametrize(("value", "word"), [(20.0, "sure"), (0.0, "impossible"), (1.0, "likely"), (12.0, "sure")])
def test_labels_render_to_the_nearest(value, word):
    assert SCALE.render(value) == word


@pytest.mark.parametrize(("text", "value"), [("6.67 / 10.00", 6.67), ("7", 7.0), (" 10/10. ", 10.0)])
def test_numbers(text, value):
    assert NumberScale().parse(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "12.33 / 10.00", "0.5", "seven", "-1", "6 / 7", "", "6 or 7"])
def test_numbers_off_the_scale_are_missing(text):
    assert NumberScale().parse(text) is None


@given(st.floats(1, 10))
def test_numbers_survive_a_round_trip(value):
    scale = NumberScale()
    assert scale.parse(scale.render(value)) == pytest.approx(value, abs=0.00501)


@given(st.text())
def test_parsers_never_raise(text):
    for scale in (SCALE, NumberScale()):
        assert scale.parse(text) is None or scale.parse(text) >= 0.001


def test_a_version_follows_the_words():
    reworded = EstimateValue.with_instructions("Judge the state differently.")
    assert signature_version(EstimateValue) != signature_version(reworded)
    assert signature_version(EstimateValue) == signature_version(EstimateValue)


def test_variants():
    assert list(lookahead_variant(Lookahead, "lv").output_fields) == ["score"]
    assert list(lookahead_variant(LookaheadNumbers, "lv+tr").output_fields) == ["best_action", "next_state", "score"]
    assert lookahead_variant_of(lookahead_variant(Lookahead, "lv+tr+r")) == "lv+tr+r"
    assert lookahead_variant_of(EstimateNumbers) is None
    with pytest.raises(ValueError, match="choose one of lv"):
        lookahead_variant(Lookahead, "tr")
