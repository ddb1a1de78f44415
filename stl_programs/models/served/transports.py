"""Which transport a LiteLLM string or a dspy LM object needs."""

from __future__ import annotations

from typing import Any

import dspy

from stl_programs.models.served.remote import LiteLLMModel, RemoteModel

DIRECT = ("hosted_vllm/", "openai/")
"""Providers that speak OpenAI's protocol: they are asked over plain HTTP."""
_CONNECTION = ("api_base", "api_key", "api_version", "timeout")


def open_remote(name: str, **options: Any) -> RemoteModel:
    """The model behind a LiteLLM string: over plain HTTP where its server speaks OpenAI's protocol, else by LiteLLM.

    Args:
        options: api_base, api_key, timeout (seconds), and further fields of every request.
    """
    if name.startswith(DIRECT):
        from stl_programs.models.served.direct import DirectModel

        return DirectModel(name, **options)
    return LiteLLMModel(name, **options)


def handles(lm: dspy.BaseLM) -> bool:
    """Whether an LM object is but a LiteLLM string with connection options, or came out of this package's door."""
    return isinstance(lm, dspy.LM) and (isinstance(lm.engine, str) or hasattr(lm.engine, "stl_model"))


def from_lm(lm: dspy.BaseLM) -> Any:
    """The Model that such an LM object stands for."""
    if not isinstance(lm.engine, str):
        return lm.engine.stl_model
    options = {key: lm.kwargs[key] for key in _CONNECTION if lm.kwargs.get(key) is not None}
    if lm.kwargs.get("base_url") is not None:
        options.setdefault("api_base", lm.kwargs["base_url"])
    if lm.model.startswith(DIRECT):
        options.pop("api_version", None)
    return open_remote(lm.model, **options)
