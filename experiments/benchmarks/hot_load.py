"""How soon a new adapter answers on a vLLM server that goes on serving.

    python -m experiments.benchmarks.hot_load
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.face import Row, at_most, main, median_and_spread
from stl_programs import models
from stl_programs.models import EMBEDDED
from stl_programs.models.artifacts import weights_hash
from stl_programs.models.vllm import VllmServer

ADAPTERS = 12
RANK = 16
SECONDS = 1.0
"""Goal, from the order to load an adapter to its first token."""
NAME = "hot-loading: a new adapter's first token"


def hot_load() -> Sequence[Row]:
    """Seconds from load_adapter to the new adapter's first token, on a real vLLM server that is not restarted."""
    if not os.environ.get("STL_VLLM_PYTHON"):
        return [Row(NAME, None, "s", spread="not run: STL_VLLM_PYTHON names no interpreter with vLLM")]
    weights = EMBEDDED / "game24"
    with tempfile.TemporaryDirectory() as folder, VllmServer(weights) as server:
        paths = [random_adapter(weights, Path(folder) / f"adapter-{i}", i) for i in range(ADAPTERS)]
        before = server.pid, server.metrics()["started"]
        seconds = asyncio.run(first_tokens(server, paths))
        restarts = int((server.pid, server.metrics()["started"]) != before)
    middle, spread = median_and_spread(seconds)
    return [at_most(NAME, middle, SECONDS, "s", f"{spread} adapters of rank {RANK}"),
            Row("hot-loading: the slowest of them", max(seconds), "s", spread=f"the largest of {ADAPTERS}"),
            at_most("hot-loading: restarts of the server", restarts, 0, "", "process and start time before and after")]


async def first_tokens(server: VllmServer, paths: Sequence[Path]) -> list[float]:
    """Seconds from each adapter's loading to its first token."""
    from stl_programs.models.served.direct import DirectModel

    model, seconds = DirectModel(server.model, api_base=server.url), []
    for i, path in enumerate(paths):
        name = f"{server.model}@v{i}"
        started = time.perf_counter()
        server.load_adapter(name, path)
        await model.complete(models.Request([{"role": "user", "content": "value 4 6"}], seeds=(0,), max_tokens=1,
                                            adapter=name))
        seconds.append(time.perf_counter() - started)
    await models.close_sessions()
    return seconds


def random_adapter(base: Path, folder: Path, seed: int) -> Path:
    """A LoRA adapter of a Llama directory, in PEFT's format, with random weights."""
    from safetensors.numpy import save_file

    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    shapes = {"self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width),
              "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, queries),
              "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
    draw = np.random.default_rng(seed)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for part, (rows, columns) in shapes.items():
            name = f"base_model.model.model.layers.{layer}.{part}"
            weights[f"{name}.lora_A.weight"] = draw.normal(0, 0.1, (RANK, columns)).astype(np.float32)
            weights[f"{name}.lora_B.weight"] = draw.normal(0, 0.1, (rows, RANK)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "lora_dropout": 0.0,
        "bias": "none", "target_modules": sorted(part.partition(".")[2] for part in shapes)}), encoding="utf-8")
    (folder / "provenance.json").write_text(json.dumps({"base_sha256": weights_hash(base)}), encoding="utf-8")
    return folder


if __name__ == "__main__":
    sys.exit(main({"hot-load": hot_load}))
