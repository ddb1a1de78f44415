"""Which transport a LiteLLM string or a dspy LM object needs."""

from __future__ import annotations

from typing import Any

import dspy

from stl_programs.errors import ModelError
from stl_programs.models.served.remote import LiteLLMModel, RemoteModel

DIRECT = ("hosted_vllm/", "openai/")
"""Providers that speak OpenAI's protocol: they are asked over plain HTTP."""
OF_A_DRAW = frozenset({"temperature", "max_tokens", "stop"})
"""Settings of a dspy LM that a predictor reads, and passes on with every request; also "max_completion_tokens"."""
OF_DSPY = frozenset({"rollout_id", "cache", "num_retries", "callbacks"})
"""Those that only mean something where dspy itself sends."""
OURS = {"n": "samples= of the Value or Policy", "seed": "seed= of the run", "logprobs": "logprobs= of the Policy",
        "top_logprobs": "logprobs= of the Policy"}
"""Those that a search sets, and where to say it."""


def open_remote(name: str, **options: Any) -> RemoteModel:
    """The model behind a LiteLLM string: over plain HTTP where its server speaks OpenAI's protocol, else by LiteLLM.

    Args:
        options: api_base, api_key, timeout (seconds), and others: see `options.connection`.
    """
    if name.startswith(DIRECT):
        from stl_programs.models.served.direct import DirectModel

        return DirectModel(name, **options)
    return LiteLLMModel(name, **options)


def handles(lm: dspy.BaseLM) -> bool:
    """Whether an LM object is but a LiteLLM string with connection options, or came out of this package's door."""
    return isinstance(lm, dspy.LM) and (hasattr(lm.engine, "stl_model") or (
        isinstance(lm.engine, str) and lm.model_type == "chat"))


def from_lm(lm: dspy.BaseLM) -> Any:
    """The Model that such an LM object stands for, with all that it was given. Raises ModelError for what a search
    sets itself."""
    if not isinstance(lm.engine, str):
        return lm.engine.stl_model
    given = {name: value for name, value in lm.kwargs.items() if value is not None}
    for name, where in OURS.items():
        if given.pop(name, None) not in (None, False, 1 if name == "n" else None):
            raise ModelError(f"{lm.model}: a search passes no {name}= of a dspy LM on: say {where}, and leave it "
                             "out of the LM")
    options = {name: value for name, value in given.items() if name not in OF_A_DRAW | OF_DSPY}
    if lm.model.startswith(DIRECT):
        options.pop("api_version", None)
    return open_remote(lm.model, **options)
