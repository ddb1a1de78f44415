"""A transformers model in this process: requests of all tasks are generated together, grouped by adapter and length."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import json
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from stl_programs.errors import AdapterError, ModelError, OutOfRange
from stl_programs.models.base import FREE, Completions, Messages, Prices
from stl_programs.models.formats import FORMATS

MAX_BATCH = 1024
"""Most sequences generated at once."""
GATHER_SECONDS = 0.002
"""How long the first request of an idle model waits for others to join it."""

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def weights_hash(directory: Path) -> str:
    """SHA-256 over the names and contents of the safetensors files in `directory`."""
    digest = hashlib.sha256()
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{directory} holds no safetensors file")
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass
class _Request:
    tokens: list[int]
    seeds: Sequence[int]
    temperature: float
    max_tokens: int
    adapter: str | None
    future: asyncio.Future[Completions]
    loop: asyncio.AbstractEventLoop


class InProcessModel:
    """A model directory served by one worker thread.

    `directory` holds config, safetensors and a tokenizer with a chat template; `stl_programs.json` beside them may name
    the prompt format that the model was made for ("compact"); without it, "lookahead".
    """

    endpoint: str | None = None

    def __init__(self, name: str, directory: Path):
        self.name, self.directory = name, directory
        brought = directory / "stl_programs.json"
        settings = json.loads(brought.read_text()) if brought.is_file() else {}
        self.prompt_format = FORMATS[settings.get("prompt_format", "lookahead")]()
        self._adapters: dict[str, Path] = {}
        self._models: dict[str | None, Any] = {}
        self._waiting: list[_Request] = []
        self._wake = threading.Condition()
        self._worker: threading.Thread | None = None
        self._closed = False

    @cached_property
    def tokenizer(self) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(self.directory)
        if tokenizer.chat_template is None:
            raise ModelError(f"{self.directory} has no chat template; add one to its tokenizer")
        return tokenizer

    def prices(self) -> Prices:
        return FREE

    def check(self) -> None:
        self._model(None)

    def weights(self) -> Path:
        return self.directory

    def load_adapter(self, name: str, path: Path) -> None:
        provenance = path / "provenance.json"
        if not provenance.is_file():
            raise AdapterError(f"{path} is no adapter of this project: it has no provenance.json")
        base = json.loads(provenance.read_text())["base_sha256"]
        if base != (own := weights_hash(self.directory)):
            raise AdapterError(f"the adapter {path} was trained on base {base[:12]}; {self.name} is {own[:12]}")
        self._adapters[name] = path

    def _model(self, adapter: str | None) -> Any:
        if adapter not in self._models:
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks, not we
            model = AutoModelForCausalLM.from_pretrained(self.directory, dtype=torch.float32)
            if adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, self._adapters[adapter]).merge_and_unload()
            model.eval()
            model.generation_config = transformers.GenerationConfig(
                do_sample=False, pad_token_id=self.tokenizer.pad_token_id, eos_token_id=self.tokenizer.eos_token_id)
            self._models[adapter] = model
        return self._models[adapter]

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None) -> Completions:
        tokens = self._encode(messages)
        loop = asyncio.get_running_loop()
        request = _Request(tokens, seeds, temperature, max_tokens, adapter, loop.create_future(), loop)
        with self._wake:
            self._waiting.append(request)
            if self._worker is None:
                self._worker = threading.Thread(target=self._serve, name=self.name, daemon=True)
                self._worker.start()
                atexit.register(self.close)  # a thread inside torch must not outlive the interpreter
            self._wake.notify()
        return await request.future

    def _encode(self, messages: Messages) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in tokens:
            raise OutOfRange(f"{self.name} has no token for a part of {messages[-1]['content']!r}")
        return tokens

    def _serve(self) -> None:
        torch.set_num_threads(1)
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
            time.sleep(GATHER_SECONDS)
            with self._wake:
                batch, self._waiting = self._waiting, []
            groups: dict[Any, list[_Request]] = defaultdict(list)
            for request in batch:
                groups[request.adapter, request.temperature, request.max_tokens, len(request.tokens)].append(request)
            for group in groups.values():
                for part in _parts(group):
                    if self._closed:
                        return
                    self._answer(part)
            if self._closed:
                return

    def close(self) -> None:
        """Stop after the batch in hand; later requests are not answered."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._worker is not None:
            self._worker.join()

    def _answer(self, group: list[_Request]) -> None:
        started = time.perf_counter()
        try:
            texts, counts = self._generate(group)
        except Exception as error:  # a worker thread must hand every failure to its askers
            failure = ModelError(f"{self.name} failed: {error}")
            for request in group:
                _hand_over(request, failure)
            return
        seconds = (time.perf_counter() - started) / len(group)
        row = 0
        for request in group:
            n = len(request.seeds)
            reply = Completions(texts[row:row + n], len(request.tokens), sum(counts[row:row + n]),
                                seconds=seconds)
            row += n
            _hand_over(request, reply)

    @torch.inference_mode()
    def _generate(self, group: list[_Request]) -> tuple[list[str | None], list[int]]:
        first = group[0]
        model = self._model(first.adapter)
        prompts = torch.tensor([request.tokens for request in group for _ in request.seeds])
        room = model.config.max_position_embeddings - prompts.shape[1]
        if room < 1:
            raise ModelError(f"a prompt of {prompts.shape[1]} tokens; the context holds "
                             f"{model.config.max_position_embeddings}")
        seeds = np.array([seed for request in group for seed in request.seeds], dtype=np.uint64)
        out = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=min(first.max_tokens, room),
            logits_processor=LogitsProcessorList([SeededSampling(seeds, first.temperature)]))
        new = out[:, prompts.shape[1]:]
        ended = new == self.tokenizer.eos_token_id
        lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, new.shape[1]).tolist()
        texts = self.tokenizer.batch_decode(
            [row[:n] for row, n in zip(new.tolist(), lengths, strict=True)], skip_special_tokens=True)
        return list(texts), lengths


def _parts(group: list[_Request]) -> list[list[_Request]]:
    """Cut a group into parts of at most MAX_BATCH sequences."""
    parts: list[list[_Request]] = [[]]
    size = 0
    for request in group:
        if parts[-1] and size + len(request.seeds) > MAX_BATCH:
            parts.append([])
            size = 0
        parts[-1].append(request)
        size += len(request.seeds)
    return parts


def _hand_over(request: _Request, outcome: Completions | Exception) -> None:
    with contextlib.suppress(RuntimeError):  # the asker's loop is closed: nobody waits any more
        request.loop.call_soon_threadsafe(_settle, request.future, outcome)


def _settle(future: asyncio.Future[Completions], outcome: Completions | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class SeededSampling(LogitsProcessor):
    """Exact sampling by inverse distribution, one stream of uniforms per row.

    A draw depends on its own seed and step, not on which other rows share its batch. `seeds`: [B] uint64.
    """

    def __init__(self, seeds: np.ndarray, temperature: float):
        self.seeds, self.temperature, self.step = seeds, temperature, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.temperature == 0:
            return scores
        self.step += 1
        uniform = torch.from_numpy(_uniform(self.seeds, self.step))[:, None]
        cumulative = torch.softmax(scores.double() / self.temperature, -1).cumsum(-1)
        chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        chosen.clamp_(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


def _uniform(seeds: np.ndarray, step: int) -> np.ndarray:
    """splitmix64 of (seed, step) as uniforms in [0, 1): [B] float64."""
    with np.errstate(over="ignore"):
        z = seeds + np.uint64(0x9E3779B97F4A7C15) * np.uint64(step)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
