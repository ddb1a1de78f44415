"""Models by their LiteLLM string.

    embedded/game24             a small model that ships with the package
    local/DIR                   a model directory (config, safetensors, tokenizer with a chat template), in this process
    openai/gpt-4o               anything that LiteLLM knows
    hosted_vllm/NAME            an OpenAI-compatible server at HOSTED_VLLM_API_BASE, or several with commas between them
    embedded/game24@value-v1    a LoRA adapter, by the version that it was registered under

An adapter is a version of a name, never new weights under an old one.
"""

from stl_programs.models.artifacts import PROVENANCE, adapter_hash
from stl_programs.models.base import Messages, Model, Prices, Reply, ReplyOptions, Request
from stl_programs.models.registry import (
    EMBEDDED,
    adapter_path,
    load,
    register_adapter,
    string_of,
    unregister_adapter,
)
from stl_programs.models.served.sessions import close_sessions
from stl_programs.models.versions import base_name, is_adapter, registered_adapters

__all__ = ["EMBEDDED", "PROVENANCE", "Messages", "Model", "Prices", "Reply", "ReplyOptions", "Request", "adapter_hash",
           "adapter_path", "base_name", "close_sessions", "is_adapter", "load", "register_adapter",
           "registered_adapters", "string_of", "unregister_adapter"]
