"""Models behind LiteLLM, and any other dspy LM object."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dspy

from stl_programs.errors import AdapterError, ModelError
from stl_programs.models.base import Completions, Messages
from stl_programs.models.formats import LookaheadFormat

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # prices ship with litellm; no fetch at import

_CONNECTION = ("api_base", "api_key", "api_version", "timeout", "base_url")
CHECK_SECONDS = 5.0
"""How long `check` waits for a server to answer."""


class RemoteModel:
    """Any LiteLLM string. n draws travel as one request; what a provider leaves out is asked for again, singly.

    Args:
        name: like "openai/gpt-4o".
        options: passed on to LiteLLM with every request (api_base, api_key, timeout, ...).
    """

    def __init__(self, name: str, **options: Any):
        self.name = name
        self.prompt_format = LookaheadFormat()
        self._options = {"num_retries": 3, **options}
        if name.startswith("hosted_vllm/"):
            self._options.setdefault("api_base", os.environ.get("HOSTED_VLLM_API_BASE"))
            self._options.setdefault("api_key", os.environ.get("HOSTED_VLLM_API_KEY", "none"))

    @staticmethod
    def handles(lm: dspy.BaseLM) -> bool:
        return isinstance(lm, dspy.LM) and isinstance(lm._engine_spec, str)

    @classmethod
    def from_lm(cls, lm: dspy.BaseLM) -> RemoteModel:
        return cls(lm.model, **{key: lm.kwargs[key] for key in _CONNECTION if lm.kwargs.get(key) is not None})

    @property
    def api_base(self) -> str | None:
        return self._options.get("api_base")

    def check(self) -> None:
        import litellm

        if self.name.startswith("hosted_vllm/") and not self.api_base:
            raise ModelError(f"{self.name}: no server; set HOSTED_VLLM_API_BASE to its URL, like http://127.0.0.1:8000/v1")
        try:
            litellm.get_llm_provider(self.name)
        except Exception as error:
            raise ModelError(f"LiteLLM knows no provider for {self.name!r}; write PROVIDER/MODEL, like openai/gpt-4o "
                             "(https://docs.litellm.ai/docs/providers)") from error
        if not self._options.get("api_key"):
            missing = litellm.validate_environment(self.name)["missing_keys"]
            if missing:
                raise ModelError(f"{self.name}: set the environment variable {' and '.join(missing)}")
        if self.api_base:
            self._reach(self.api_base)

    def _reach(self, api_base: str) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {self._options['api_key']}"} if self._options.get("api_key") else {}
        try:
            reply = httpx.get(f"{api_base.rstrip('/')}/models", headers=headers, timeout=CHECK_SECONDS)
        except httpx.HTTPError as error:
            raise ModelError(f"{self.name}: no answer from {_address(api_base)} within {CHECK_SECONDS:g} s "
                             f"({type(error).__name__}); start the server or correct the URL") from None
        if reply.status_code in (401, 403):
            raise ModelError(f"{self.name}: {_address(api_base)} refuses the key ({reply.status_code})")
        if reply.status_code == 200 and (served := _served(reply)):
            wanted = self.name.partition("/")[2]
            if wanted not in served:
                raise ModelError(f"{self.name}: {_address(api_base)} serves {', '.join(sorted(served))}, "
                                 f"not {wanted!r}")

    def weights(self) -> Path | None:
        return None

    def load_adapter(self, name: str, path: Path) -> None:
        """Load at run time through vLLM's `/v1/load_lora_adapter`; the server must see the same file system."""
        import httpx

        if not self.api_base:
            raise AdapterError(f"{self.name} takes no adapters: only a vLLM server that you run does "
                               "(hosted_vllm/NAME)")
        key = self._options.get("api_key")
        reply = httpx.post(f"{self.api_base.rstrip('/')}/load_lora_adapter",
                           json={"lora_name": name.partition("/")[2], "lora_path": str(path)},
                           headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60)
        if reply.status_code != 200 and "already" not in reply.text:
            raise AdapterError(f"{_address(self.api_base)} did not load the adapter {path} "
                               f"({reply.status_code}): {reply.text[:200]}")

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None) -> Completions:
        started = time.perf_counter()
        texts: list[str | None] = []
        prompt = completion = 0
        dollars: float | None = 0.0
        while len(texts) < len(seeds):
            got, usage, price = await self._request(adapter or self.name, messages, len(seeds) - len(texts),
                                                    seeds[len(texts)] & 0x7FFFFFFF, temperature, max_tokens)
            texts += got
            prompt += usage[0]
            completion += usage[1]
            dollars = None if dollars is None or price is None else dollars + price
        return Completions(texts[:len(seeds)], prompt, completion, time.perf_counter() - started, dollars)

    async def _request(self, name: str, messages: Messages, n: int, seed: int, temperature: float,
                       max_tokens: int) -> tuple[list[str | None], tuple[int, int], float | None]:
        import litellm

        try:
            reply = await litellm.acompletion(
                model=name, messages=messages, n=n, seed=seed, temperature=temperature, max_tokens=max_tokens,
                drop_params=True, **{key: value for key, value in self._options.items() if value is not None})
        except Exception as error:  # litellm raises many kinds; each one fails this request, with its first line
            raise ModelError(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:300]}") from error
        if not reply.choices:
            raise ModelError(f"{name} returned no choices")
        try:
            price: float | None = litellm.completion_cost(reply, model=name)
        except Exception:  # litellm has no common base for an unknown price; it stays unknown
            price = None
        return ([choice.message.content for choice in reply.choices],
                (reply.usage.prompt_tokens, reply.usage.completion_tokens), price)


def _served(reply: Any) -> set[str]:
    try:
        return {str(row["id"]) for row in reply.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return set()


def _address(url: str) -> str:
    """`url` without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


class DspyModel:
    """Any other dspy LM object (DummyLM, an LM with its own engine), one request a draw."""

    def __init__(self, lm: dspy.BaseLM):
        self.lm, self.name = lm, lm.model
        self.prompt_format = LookaheadFormat()

    def check(self) -> None:
        """Nothing to check: the object is there."""

    def weights(self) -> Path | None:
        return None

    def load_adapter(self, name: str, path: Path) -> None:
        raise AdapterError(f"{self.name} takes no adapters; name the model by its LiteLLM string")

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None) -> Completions:
        started = time.perf_counter()
        texts: list[str | None] = []
        for _ in seeds:
            outputs = await self.lm.acall(messages=messages, temperature=temperature, max_tokens=max_tokens)
            output = outputs[0] if outputs else None
            texts.append(output.get("text") if isinstance(output, dict) else output)
        return Completions(texts, 0, 0, time.perf_counter() - started, None)
