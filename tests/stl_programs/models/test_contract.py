"""What every engine promises, of the models in this process and of the simulated server that plays one."""

from __future__ import annotations

import dspy
import pytest

from stl_programs import models
from stl_programs.testing.simulator import Simulator
from tests import contract


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return contract.tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def tiny_adapters(tiny, tmp_path_factory):
    return contract.adapters_of(tiny, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    base = models.EMBEDDED / "game24"
    adapters = contract.adapters_of(base, tmp_path_factory.mktemp("embedded"))
    return contract.Subject(models.load("embedded/game24"), base, adapters, ["value 4 5 6 10", "moves 1 2 3 4"])


@pytest.fixture(scope="module")
def local(tiny, tiny_adapters):
    return contract.Subject(models.load(f"local/{tiny}"), tiny, tiny_adapters, contract.LONG_PROMPTS)


@pytest.fixture(scope="module")
def simulated(tiny, tiny_adapters):
    with Simulator(model=f"local/{tiny}", models=["tiny"]) as server:
        model = models.load(dspy.LM("hosted_vllm/tiny", api_base=server.url))
        yield contract.Subject(model, tiny, tiny_adapters, contract.LONG_PROMPTS)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("engine", ["embedded", "local", "simulated"])
def test_contract(engine, check, request, tmp_path):
    contract.run(check, request.getfixturevalue(engine), tmp_path)
