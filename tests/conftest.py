"""Shared parts: the environment, the published list where STL_DATA says it is, and scripted modules."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from experiments.kit.fakes import random_llama
from stl_programs import BaseValue, GameOf24
from stl_programs.environments.game24.world import solvable
from stl_programs.records import Sample, ValueEstimate

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started by a shell in its background, as would be all we start
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def env() -> GameOf24:
    return GameOf24()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of published data that STL_DATA names."""
    folder = os.environ.get("STL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"STL_DATA={folder or ''} names no folder; set it to that of the published data")
    return Path(folder)


@pytest.fixture(scope="session")
def published(data: Path) -> GameOf24:
    return GameOf24(data / "game24" / "24.csv")


class ScriptedValue(BaseValue):
    """Judges by a table of state texts; any other state is worth `default`. Records what it was asked."""

    def __init__(self, scores: dict[str, float | None], default: float | None = 0.001):
        super().__init__()
        self.scores, self.default = scores, default
        self.asked: list[str] = []

    async def estimate(self, situation) -> ValueEstimate:
        state = situation.state
        self.asked.append(state.text)
        score = self.scores.get(state.text, self.default)
        return ValueEstimate(score, f"because {state.text}", (Sample(score),))


class ExactValue(ScriptedValue):
    """Right about every state, with a play-out for a rationale; reward-free for the tests' purposes."""

    def __init__(self):
        super().__init__({})

    async def estimate(self, situation) -> ValueEstimate:
        state = situation.state
        self.asked.append(state.text)
        score = 20.0 if solvable(state.data) else 0.001
        return ValueEstimate(score, "end", (Sample(score, "end"),))


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory) -> Path:
    """A random Llama of bytes with a chat template, in standard Hugging Face format."""
    return random_llama(tmp_path_factory.mktemp("tiny"))
