"""vLLM in a process of its own: started, watched, and its adapters changed while it runs."""

from stl_programs.models.vllm.client import VllmClient
from stl_programs.models.vllm.server import VllmServer

__all__ = ["VllmClient", "VllmServer"]
