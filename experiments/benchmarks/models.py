"""Every figure of the models: local engine, training, adapters, costs, in one run.

    python -m experiments.benchmarks.models [--only NAME] [--json FILE]

The hot-load row needs a vLLM interpreter (`make .venv-vllm/.installed`, STL_VLLM_PYTHON).
"""

from __future__ import annotations

import sys

from experiments.benchmarks import bills, hot_load, local, training
from experiments.benchmarks.face import main

BENCHMARKS = {
    "local-engine": local.one_adapter, "local-engine-4-adapters": local.four_adapters,
    "embedded-overhead": local.embedded_overhead, "lora-training": training.lora_training,
    "hot-load": hot_load.hot_load, "ledger": bills.ledger}

if __name__ == "__main__":
    sys.exit(main(BENCHMARKS))
