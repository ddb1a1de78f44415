"""A fake that answers field by field plays a policy and a value alike, and says what it cannot read."""

from __future__ import annotations

import pytest

from signatures import EstimateValue, ProposeActions
from stl_programs import Predictor, run_sync
from stl_programs.errors import ModelError
from stl_programs.testing import ScriptedModel, answering

INPUTS = {"task": "Two\n\nparagraphs", "trajectory": "", "state": "here"}


def test_it_reads_inputs_by_name_and_says_outputs_by_name():
    seen = []

    def answer(inputs, seed):
        seen.append((inputs, seed))
        return {"actions": ["a", "b"], "rationale": "Because.", "score": "7"}

    model = ScriptedModel("scripted/fields", answering(answer))
    [judged] = run_sync(Predictor(EstimateValue, model).draw(INPUTS, [3]))
    assert judged.fields == {"rationale": "Because.", "score": "7"} and seen == [(INPUTS, 3)]
    [proposed] = run_sync(Predictor(ProposeActions, model).draw({**INPUTS, "not_allowed": ["c"], "count": 2}, [0]))
    assert proposed.fields == {"actions": ["a", "b"]} and seen[-1][0]["count"] == "2"


def test_another_format_is_an_error():
    model = ScriptedModel("scripted/fields", answering(lambda inputs, seed: {}))
    with pytest.raises(ModelError, match="reads the format 'chat', and was asked 'value here'"):
        run_sync(Predictor(EstimateValue, model, format="compact").draw(INPUTS, [0]))
