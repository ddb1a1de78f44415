"""One request a call, over plain HTTP or LiteLLM: equal replies, equal bills, and errors that say what may pass."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import dspy
import pytest
from dspy.utils import DummyLM

from stl_programs.errors import AdapterError, ModelError, TransientError
from stl_programs.models.base import Prices, ReplyOptions, Request
from stl_programs.models.served.direct import DirectModel
from stl_programs.models.served.http import Answer
from stl_programs.models.served.litellm_module import the_litellm
from stl_programs.models.served.remote import DspyModel, LiteLLMModel
from stl_programs.models.served.sessions import _sessions, close_sessions
from stl_programs.models.served.transports import from_lm, handles, open_remote
from stl_programs.models.served.urls import wait
from stl_programs.testing.scripted import ScriptedModel
from stl_programs.testing.simulator import Errors, Latency, Simulator

KEY = "sk-very-secret-key"
PROMPT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": " ".join(map(str, range(40)))}]
BOTH = pytest.mark.parametrize("kind", [DirectModel, LiteLLMModel])


def say(messages, model, seed):
    return f"{model} draws {seed} of {len(messages)}"


def complete(model, seeds=(0,), **options):
    async def run():
        try:
            return await model.complete(Request(PROMPT, tuple(seeds), **{"max_tokens": 50} | options))
        finally:
            await close_sessions()

    return asyncio.run(run())


def failure(model, kind=TransientError):
    with pytest.raises(ModelError) as caught:
        complete(model)
    assert type(caught.value) is kind
    return caught.value


@BOTH
def test_one_request_carries_all_draws(kind):
    with Simulator(say, ["m"]) as server:
        model = kind("hosted_vllm/m", api_base=server.url)
        reply = complete(model, [2**40 + 7, 1, 2], temperature=0.5)
        assert reply.texts == [f"m draws {seed} of 2" for seed in (7, 8, 9)]
        assert (reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens) == (42, 15, 0)
        assert complete(model, [7]).cached_tokens == 32
        assert complete(model, [7], max_tokens=2).texts == ["m draws"]
    first = server.requests[0]
    assert (first["n"], first["seed"], first["temperature"], first["max_tokens"]) == (3, 7, 0.5, 50)


def test_litellm_and_direct_are_interchangeable():
    with Simulator(say, ["a/m", "a/m@v1"]) as server:
        replies = []
        for kind in (DirectModel, LiteLLMModel):
            model = kind("hosted_vllm/a/m", api_base=server.url, top_p=0.9)
            server.reset()
            replies.append([complete(model, range(4)), complete(model, [3], adapter="hosted_vllm/a/m@v1")])
            assert [request["top_p"] for request in server.requests] == [0.9, 0.9]
            assert model.endpoint == server.url
    assert replies[0] == replies[1] and replies[0][1].texts == ["a/m@v1 draws 3 of 2"]


@BOTH
@pytest.mark.parametrize(("error", "paid", "after"), [
    ("429", False, 0.25), ("500", False, None), ("timeout", True, None), ("cut", True, None)])
def test_what_may_pass_is_transient(kind, error, paid, after):
    with Simulator(say, ["m"], errors=Errors(1.0, (error,), timeout_seconds=0.2, retry_after=0.25)) as server:
        caught = failure(kind("hosted_vllm/m", api_base=server.url, api_key=KEY))
        assert (caught.maybe_paid, caught.retry_after) == (paid, after)
        assert len(server.log()) == 1, "nothing is retried here"
        assert "hosted_vllm/m" in str(caught) and KEY not in str(caught)


@BOTH
def test_a_timeout_may_be_paid_for(kind):
    with Simulator(say, ["m"], latency=Latency(60.0)) as server:
        caught = failure(kind("hosted_vllm/m", api_base=server.url, timeout=0.3))
        assert caught.maybe_paid and len(server.log()) == 1
    if kind is DirectModel:
        assert "within 0.3 s" in str(caught)


@BOTH
def test_a_refused_connection_is_not_paid_for(kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    caught = failure(kind("hosted_vllm/m", api_base=url))
    assert not caught.maybe_paid and caught.retry_after is None


def test_text_that_does_not_parse_is_the_callers_affair():
    with Simulator(say, ["m"], errors=Errors(1.0, ("wrong",))) as server:
        assert complete(DirectModel("hosted_vllm/m", api_base=server.url), [0, 1]).texts == ["I do not know"] * 2


@BOTH
def test_what_will_not_pass_is_not_transient(kind):
    with Simulator(say, ["m"]) as server:
        caught = failure(kind("hosted_vllm/absent", api_base=server.url, api_key=KEY), ModelError)
        assert "`absent` does not exist" in str(caught) and KEY not in str(caught)
    with pytest.raises(ModelError, match="n of a request cannot be set"):
        kind("hosted_vllm/m", api_base=server.url, n=10**6)


def serve(*replies):
    """For one call per reply to a server that sends these bytes: what the calls returned or raised."""
    async def run(model_of):
        rest = iter(replies)

        async def handler(reader, writer):
            length = 0
            while (line := await reader.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            await reader.readexactly(length)
            writer.write(next(rest))
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(handler, "127.0.0.1", 0) as server:
            model = model_of(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            found = []
            for _ in replies:
                try:
                    found.append(await model.complete(Request(PROMPT, (0, 1, 2), max_tokens=5)))
                except ModelError as error:
                    found.append(error)
            await close_sessions()
            return found

    return run


def raw(status, body, headers=""):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def choices(*contents):
    return {"choices": [{"message": {"content": content}} for content in contents]}


def test_replies_of_odd_servers():
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    found = asyncio.run(serve(
        raw(200, choices("one") | usage), raw(200, choices(None, "b", "c", "d") | usage), raw(200, choices("four")),
        raw(200, {"choices": []}), raw(200, {"object": "error"}), raw(200, []),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"", b"garbage\r\n\r\n",
    )(lambda host: DirectModel("hosted_vllm/m", api_base=f"http://{host}/v1")))
    assert found[0].texts == ["one"] and found[0].prompt_tokens == 3, "n was ignored: one text of three"
    assert found[1].texts == [None, "b", "c"]
    assert found[2].prompt_tokens == Request(PROMPT, (0,)).prompt_tokens_bound and found[2].completion_tokens == 4
    assert all(type(error) is TransientError and error.maybe_paid for error in found[3:])


def test_errors_of_odd_servers():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    secret = "p4ssw0rd"
    found = asyncio.run(serve(
        raw(401, {"error": {"message": f"bad key {KEY}\nsecond line"}}),
        raw(400, {"message": "too \x1b[31mlong " * 99}),
        raw(403, f"no entry with {secret}".encode()), raw(503, b"<html>busy", f"Retry-After: {date}\r\n"),
        raw(429, {"error": "slow down"}, "Retry-After: 7\r\n"), raw(307, b"", "Location: http://127.0.0.1:9/\r\n"),
        raw(500, b"\xff\xfe"),
    )(lambda host: DirectModel("hosted_vllm/m", api_base=f"http://user:{secret}@{host}/v1?token={KEY}", api_key=KEY)))
    assert [type(error) for error in found] == [
        ModelError, ModelError, ModelError, TransientError, TransientError, ModelError, TransientError]
    assert not any(part in str(error) for error in found for part in (KEY, secret, "\n", "\x1b", "token="))
    assert "401: bad key *** second line" in str(found[0]) and len(str(found[1])) < 500 and "no entry" in str(found[2])
    assert 90 < found[3].retry_after <= 100 and found[4].retry_after == 7.0 and found[6].retry_after is None
    assert not any(error.maybe_paid for error in (found[3], found[4], found[6]))


def test_retry_after_is_read_leniently():
    assert (wait(None), wait("0.5"), wait("-3"), wait("soon")) == (None, 0.5, 0.0, None)
    assert wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_two_hundred_requests_at_once_share_a_session():
    async def crowd(url):
        before = len(_sessions)  # that of calls from outside a run lives on
        models = [DirectModel("hosted_vllm/m", api_base=url), DirectModel("hosted_vllm/v", api_base=url)]
        replies = await asyncio.gather(*(models[i % 2].complete(Request(PROMPT, (i,), max_tokens=9))
                                         for i in range(200)))
        assert len(_sessions) == before + 1
        await close_sessions()
        assert len(_sessions) == before
        return replies

    with Simulator(say, ["m", "v"], latency=Latency(2.0)) as server:
        replies = asyncio.run(crowd(server.url))
        assert server.stats()["peak_in_flight"] == 200
    assert [reply.texts for reply in replies] == [[f"{'mv'[i % 2]} draws {i} of 2"] for i in range(200)]


def test_sessions_of_closed_loops_are_forgotten():
    with Simulator(say, ["m"]) as server:
        model = DirectModel("hosted_vllm/m", api_base=server.url)
        before = len(_sessions)
        for _ in range(3):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(model.complete(Request(PROMPT, (0,), max_tokens=9)))
            loop.close()
            assert len(_sessions) == before + 1
        complete(model)


def test_who_speaks_to_whom(monkeypatch):
    for variable in ("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_API_KEY", "HOSTED_VLLM_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    assert type(open_remote("anthropic/claude-x")) is LiteLLMModel
    assert open_remote("anthropic/claude-x").endpoint == "anthropic"
    assert open_remote("openai/gpt-4o").endpoint == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:pw@127.0.0.1:9/v1?x=1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = open_remote("openai/gpt-4o")
    assert type(model) is DirectModel and model.endpoint == "http://127.0.0.1:9/v1" and model.weights() is None
    lm = dspy.LM("hosted_vllm/m", api_base="http://127.0.0.1:9/v1", api_key=KEY, timeout=3)
    assert handles(lm) and not handles(DummyLM([]))
    model = from_lm(lm)
    assert (type(model), model.endpoint, model.timeout) == (DirectModel, "http://127.0.0.1:9/v1", 3)
    model = from_lm(dspy.LM("azure/m", base_url="http://127.0.0.1:9/x", api_version="2024-06-01"))
    assert (type(model), model.endpoint, model.extra) == (LiteLLMModel, "http://127.0.0.1:9/x",
                                                          {"api_version": "2024-06-01"})


def sent(model, **options):
    """The body that `complete` would send."""
    bodies = []

    async def send(name, server, body):
        bodies.append(json.loads(body))
        found = choices("x") | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        return Answer(200, {}, json.dumps(found).encode())

    model._send = send
    complete(model, **options)
    return bodies[0]


def test_openais_reasoning_models_get_no_temperature():
    for name, at, kept in (("o3-mini", "https://api.openai.com/v1", False), ("gpt-5", None, False),
                           ("gpt-4o", None, True), ("o3-mini", "http://127.0.0.1:9/v1", True)):
        body = sent(DirectModel(f"openai/{name}", api_base=at or "https://api.openai.com/v1"))
        assert ("temperature" in body) is kept, name


@BOTH
def test_options_travel_as_openai_names_them(kind):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    with Simulator(lambda *_: "one two three", ["m"]) as server:
        model = kind("hosted_vllm/m", api_base=server.url)
        assert complete(model, options=ReplyOptions(("two", "x"), schema=schema)).texts == ["one "]
        request = server.requests[0]
        assert request["stop"] == ["two", "x"] and "logprobs" not in request
        assert request["response_format"] == {"type": "json_schema", "json_schema": {
            "name": "reply", "schema": schema, "strict": True}}
        with pytest.raises(ModelError, match="a scripted reply has no logprobs") as caught:
            complete(model, options=ReplyOptions(logprobs=True))
        assert not isinstance(caught.value, TransientError) and "\n" not in str(caught.value)


def test_log_probabilities_are_read_and_missed():
    def scored(*rows):
        return {"choices": [{"message": {"content": text}, "logprobs": logprobs} for text, logprobs in rows],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    def ask(body):
        model = DirectModel("hosted_vllm/m", api_base="http://127.0.0.1:9/v1")

        async def send(*_):
            return Answer(200, {}, json.dumps(body).encode())

        model._send = send
        return complete(model, [0, 1], options=ReplyOptions(logprobs=True))

    one = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}, {"token": "b", "logprob": 0}]}
    assert ask(scored(("ab", one), ("", None))).logprobs == [[("a", -0.5), ("b", 0.0)], []]
    with pytest.raises(ModelError, match="no log-probabilities, though they were asked for"):
        ask(scored(("ab", one), ("cd", None)))


def test_fakes_and_other_objects_say_what_they_cannot_give():
    for model in (ScriptedModel("scripted/s", say), DspyModel(DummyLM([]))):
        for options in (ReplyOptions(logprobs=True), ReplyOptions(schema={"type": "object"})):
            with pytest.raises(ModelError, match=r"^(scripted/s|dummy)"):
                complete(model, options=options)
        with pytest.raises(AdapterError, match="serves no adapter"):
            model.unload_adapter("x@v1")
    assert complete(ScriptedModel("scripted/s", lambda *_: "one two"), options=ReplyOptions(("two",))).texts == ["one "]


def test_openai_limits_are_named_as_openai_wants():
    assert DirectModel("openai/gpt-4o", api_base="https://api.openai.com/v1")._limit == "max_completion_tokens"
    assert DirectModel("openai/gpt-4o", api_base="http://127.0.0.1:9/v1")._limit == "max_tokens"


def test_without_a_server_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("HOSTED_VLLM_API_BASE", raising=False)
    assert "HOSTED_VLLM_API_BASE" in str(failure(open_remote("hosted_vllm/m"), ModelError))


def test_a_server_of_your_own_needs_no_openai_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Simulator(say, ["m"]) as server:
        model = open_remote("openai/m", api_base=server.url)
        model.check()
        assert complete(model).texts == ["m draws 0 of 2"]
    with pytest.raises(ModelError, match="no answer from"):
        model.check()


def test_adapters_are_loaded_where_they_can_be(tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    with Simulator(say, ["m"]) as server:
        model = open_remote("hosted_vllm/m", api_base=server.url)
        model.load_adapter("hosted_vllm/m@v1", tmp_path)
        model.load_adapter("hosted_vllm/m@v1", tmp_path)
        assert complete(model, adapter="hosted_vllm/m@v1").texts == ["m@v1 draws 0 of 2"]
        with pytest.raises(AdapterError, match=r"none is no adapter: adapter_config.json is missing"):
            model.load_adapter("hosted_vllm/m@v2", tmp_path / "none")
        model.unload_adapter("hosted_vllm/m@v1")
        with pytest.raises(ModelError, match="`m@v1` does not exist"):
            complete(model, adapter="hosted_vllm/m@v1")
    with pytest.raises(AdapterError, match="no answer"):
        model.load_adapter("hosted_vllm/m@v3", tmp_path)
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(AdapterError, match="takes no adapters"):
        open_remote("openai/gpt-4o").load_adapter("openai/gpt-4o@v1", tmp_path)


@pytest.mark.parametrize(("reply", "words"), [
    ((500, {"error": {"message": "LoRA rank 64 is greater than max_lora_rank 16."}}), "(500): LoRA rank 64 is greater"),
    ((404, {"error": {"message": "No adapter found for '/there'"}}), "(404): No adapter found for '/there'"),
    ((404, {"detail": "Not Found"}), "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True")])
def test_what_a_server_says_of_an_adapter_is_passed_on(tmp_path, reply, words):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    model = DirectModel("hosted_vllm/m", api_base="http://127.0.0.1:9/v1")

    def answer(server, method, path, body=None):
        status, words = (200, {"data": []}) if method == "GET" else reply
        return Answer(status, {}, json.dumps(words).encode())

    model.pool._ask = answer
    with pytest.raises(AdapterError) as caught:
        model.load_adapter("hosted_vllm/m@v1", tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_prices_come_from_the_local_table():
    litellm = the_litellm()
    prices = open_remote("openai/gpt-4o").prices()
    assert prices is not None and 0 < prices.cached_prompt < prices.prompt < prices.completion
    model = open_remote("hosted_vllm/priced-in-a-test", api_base="http://127.0.0.1:9/v1")
    assert model.prices() is None
    litellm.register_model({"hosted_vllm/priced-in-a-test": {
        "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "litellm_provider": "hosted_vllm",
        "mode": "chat"}})
    assert model.prices() == Prices(1e-6, 1e-6, 2e-6), "found once it is registered"


def test_any_other_lm_object_answers_once_a_draw():
    model = DspyModel(DummyLM([{"answer": "red"}, {"answer": "blue"}]))
    first, second = complete(model, [0, 1]), complete(model, [1])
    assert ["red" in first.texts[0], "blue" in second.texts[0]] == [True, True] and len(first.texts) == 1
    assert first.bounds and first.prompt_tokens > 0, "it reports none: they are bounds"
    assert model.endpoint == model.name and model.prices() is None
