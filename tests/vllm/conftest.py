"""A real vLLM server for these tests; they are skipped where STL_VLLM_PYTHON names no interpreter that has one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stl_programs.models.vllm import VllmServer
from tests import contract


@contextmanager
def serving(weights: Path, **options) -> Iterator[VllmServer]:
    if not os.environ.get("STL_VLLM_PYTHON"):
        pytest.skip("set STL_VLLM_PYTHON to an interpreter with vLLM, or call `make test-vllm`")
    with VllmServer(weights, dtype="float32", progress=print, **options) as server:
        yield server


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return contract.tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def adapters(tiny, tmp_path_factory) -> list[Path]:
    return contract.adapters_of(tiny, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="session")
def server(tiny) -> Iterator[VllmServer]:
    """The tiny random Llama."""
    with serving(tiny, max_lora_rank=8) as started:
        yield started
