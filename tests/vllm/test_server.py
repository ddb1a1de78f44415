"""A real vLLM server: what every engine promises, and what its manager adds."""

from __future__ import annotations

import asyncio

import dspy
import pytest

from stl_programs import models
from stl_programs.errors import AdapterError, ModelError, TransientError
from stl_programs.models.vllm import VllmServer
from tests import contract

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def subject(server, tiny, adapters) -> contract.Subject:
    model = models.load(dspy.LM(server.model, api_base=server.url))
    return contract.Subject(model, tiny, adapters, contract.LONG_PROMPTS, max_rank=server.max_lora_rank)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_contract(check, subject, tmp_path):
    contract.run(check, subject, tmp_path)


def asked(subject, prompt: str, **options):
    async def whole():
        try:
            return await subject.ask(prompt, **options)
        finally:
            await models.close_sessions()

    return asyncio.run(whole())


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"max_tokens": 0}])
def test_a_bad_request_is_not_sent(subject, options):
    with pytest.raises(ModelError, match="1 draw or more of 1 token or more, at a temperature of 0 or more"):
        asked(subject, subject.prompts[0], **options)


def test_a_request_that_the_server_refuses_does_not_pass_when_sent_again(subject):
    with pytest.raises(ModelError, match="answered 400") as raised:
        asked(subject, subject.prompts[0], max_tokens=100_000)
    assert not isinstance(raised.value, TransientError)


def test_a_beginning_that_was_read_before_is_reported_as_cached(subject, server):
    before = server.metrics()
    prompt = "Sphinx of black quartz, judge my vow. " * 12
    asked(subject, prompt)
    reply = asked(subject, prompt)
    after = server.metrics()
    assert 0 < reply.cached_tokens < reply.prompt_tokens
    assert after["prefix_cache_hits"] - before["prefix_cache_hits"] == reply.cached_tokens
    assert after["prompt_tokens"] - before["prompt_tokens"] == 2 * reply.prompt_tokens
    assert after["running"] == after["waiting"] == 0 and 0 <= after["kv_cache_usage"] <= 1


def test_adapters_come_and_go_without_a_restart(subject, server, adapters):
    started = server.metrics()["started"]
    for i, path in enumerate(adapters):
        server.load_adapter(f"tiny@manager-{i}", path)
    assert server.adapters() == {f"tiny@manager-{i}": path for i, path in enumerate(adapters)}
    reply = asked(subject, subject.prompts[0], adapter="hosted_vllm/tiny@manager-2")
    assert contract.distance(subject.base, adapters[2], subject.prompts[0], reply) < contract.CLOSE
    for name in server.adapters():
        server.unload_adapter(name)
    assert server.adapters() == {} and server.metrics()["started"] == started


def test_an_attached_server_refuses_by_its_own_words(subject, server, tmp_path):
    attached = VllmServer.attach(server.url)
    assert (attached.model, attached.health()) == (server.model, True)
    large = contract.random_adapter(subject.base, tmp_path / "large", seed=9, rank=16)
    with pytest.raises(AdapterError, match=r"\(500\).*rank"):
        attached.load_adapter("tiny@large", large)
    with pytest.raises(AdapterError, match="rank 16; the server takes at most 8"):
        server.load_adapter("tiny@large", large)
