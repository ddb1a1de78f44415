"""Every search, with small settings, over one world and one scripted model."""

from __future__ import annotations

from typing import Any

from stl_programs import (
    MCTS,
    BeamSearch,
    BestFirstSearch,
    Environment,
    GreedySearch,
    LiteSearch,
    PartialExpansionSearch,
    Policy,
    SearchProgram,
    Value,
)
from stl_programs.models.formats import ChatFormat
from stl_programs.testing.scripted import Says, ScriptedModel

SEARCHES: dict[str, tuple[type[SearchProgram], dict[str, Any]]] = {
    "greedy": (GreedySearch, {}), "beam": (BeamSearch, {"width": 2}),
    "mcts": (MCTS, {"simulations": 12}), "mcts, parallel": (MCTS, {"simulations": 12, "parallel": 4}),
    "mcts, rollouts": (MCTS, {"simulations": 6, "rollout": True}),
    "best first": (BestFirstSearch, {"expansions": 12}), "lite": (LiteSearch, {"expansions": 40, "confidence": 0.99}),
    "partial": (PartialExpansionSearch, {"judgements": 24})}


def scripted(reply: Says) -> ScriptedModel:
    """A model that speaks the chat format."""
    return ScriptedModel("scripted/own", reply, prompt_format=ChatFormat())


def program(name: str, env: Environment, model: ScriptedModel, *, samples: int = 3, **options: Any) -> SearchProgram:
    """The search of that name, with a model's policy and value."""
    search, settings = SEARCHES[name]
    value = Value(env.value_signature, model, samples=samples, judges=env.judges)
    return search(env, Policy(env.policy_signature, model, count=3, rounds=2), value, **{**settings, **options})
