"""A real pretrained model on both worlds: as policy, as value, tuned on ten rows; what parses is printed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from optimizers import LoraSettings
from optimizers.data.lookahead import lookahead
from optimizers.data.rows import build_dataset, rows_hash
from optimizers.stl import tuned_value
from optimizers.trainers.sft import train_adapter
from stl_programs import GreedySearch, HotpotQA, LegalMoves, Policy, Value, WebShop, models, run_tasks
from stl_programs.models.formats import ChatFormat
from stl_programs.testing import ScriptedModel, answering
from stl_programs.testing.readers import librarian, shopper
from stl_programs.tree import Tree

MODEL = Path(__file__).parents[2] / "runs" / "models" / "gemma-3-270m"
WORLDS = {"webshop": (lambda: WebShop(tags="rules", shown=2, max_depth=2), shopper),
          "hotpotqa": (lambda: HotpotQA(max_depth=2), librarian)}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not (MODEL / "config.json").is_file(), reason="runs/models/gemma-3-270m is not there: call `make small-model`")]


def said(role, usage):
    """How many draws there were, and how many parsed."""
    samples, unread = usage["samples"], usage["parse_failures"]
    print(f"  {role}: {samples - unread} of {samples} draws parsed, {usage['prompt_tokens']} prompt tokens")
    assert 0 <= unread <= samples and samples > 0
    return samples


@pytest.mark.parametrize("name", WORLDS)
def test_it_proposes_judges_learns_ten_rows_and_judges_again(name, tmp_path):
    build, reader = WORLDS[name]
    env, lm = build(), f"local/{MODEL}"
    task = env.tasks("test")[0]
    policy = Policy(env.policy_signature, lm, count=2, samples=1, max_tokens=80, format="chat")
    value = Value(env.value_signature, lm, samples=2, max_tokens=60, format="chat")
    print(f"\n{name}")

    [result] = asyncio.run(run_tasks(GreedySearch(env, policy, reading(env, reader)), [task]))
    assert result.error is None
    said("policy", result.usage["policy"])
    [result] = asyncio.run(run_tasks(GreedySearch(env, FirstTwo(), value), [task]))
    assert result.error is None
    assert said("value", result.usage["value"]) == 2 * result.states_judged

    rows = ten_rows(env, reader)
    record = train_adapter(rows, MODEL, tmp_path / "adapter", LoraSettings(
        epochs=1, batch_size=2, warmup_steps=0, learning_rate=2e-4, max_length=1024))
    print(f"  LoRA: {len(rows.rows)} rows, {record['steps']} steps in {record['train_seconds']:g} s, "
          f"losses {record['losses']}")
    assert record["steps"] == 5 and (tmp_path / "adapter" / "adapter_model.safetensors").is_file()

    adapter = f"{lm}@{name}-ten-rows"
    models.register_adapter(adapter, tmp_path / "adapter")
    tuned = tuned_value(GreedySearch(env, FirstTwo(), value), adapter, "lv+tr+r")
    [result] = asyncio.run(run_tasks(GreedySearch(env, FirstTwo(), tuned), [task]))
    assert result.error is None and any(adapter in by_model for by_model in result.usage_by_model.values())
    assert said("tuned value", result.usage["value"]) == 2 * result.states_judged


class FirstTwo(LegalMoves):
    """The first two of the legal actions."""

    async def aforward(self, situation, count=None, exclude=(), draw=0):
        return (await super().aforward(situation, count, exclude, draw))[:2]


def reading(env, reader):
    return Value(env.value_signature, ScriptedModel("scripted/reader", answering(reader)), samples=1, format="chat")


def ten_rows(env, reader):
    """Ten lookahead rows of rollouts that a named fake judged, in the format of the model."""
    results = asyncio.run(run_tasks(GreedySearch(env, FirstTwo(), reading(env, reader)), env.tasks("train")[:8],
                                    keep_trees=True))
    trees = [Tree.from_dict(result.tree) for result in results]
    examples, _ = lookahead(trees, asks=env.lookahead_signature.input_fields)
    found = build_dataset(sorted(examples, key=lambda one: len(one.state) + len(one.next_state))[:14],
                          env.lookahead_signature, ChatFormat(), env.scale)
    rows = [*found.rows, *found.validation_rows][:10]
    assert len(rows) == 10
    return replace(found, rows=rows, validation_rows=[], manifest={**found.manifest, "sha256": rows_hash(rows)})
