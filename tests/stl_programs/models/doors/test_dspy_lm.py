"""Every model is an ordinary dspy LM behind one door, and the models of this process are LiteLLM providers."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import dspy
import pytest
from dspy.clients.base_lm import BaseLM
from dspy.utils.exceptions import LMError
from pydantic import BaseModel

from stl_programs import BeamSearch, GameOf24, LegalMoves, Policy, Value, models
from stl_programs.engine import run_sync, run_tasks
from stl_programs.errors import AdapterError, ModelError
from stl_programs.models import ReplyOptions, Request
from stl_programs.models.doors.dspy_lm import lm
from stl_programs.models.doors.litellm_providers import read_options, register_with_litellm
from stl_programs.models.served.protocol import asked_for
from stl_programs.models.served.remote import LiteLLMModel
from stl_programs.situations import Situation
from stl_programs.testing.simulator import Errors, Simulator
from tests.contract import random_adapter, tiny_llama

ROOT = Path(__file__).parents[4]
KEY = "sk-SECRET123456"
GAME24 = "embedded/game24"
PROMPT = [{"role": "user", "content": "value 4 6"}]


def say(messages, model, seed):
    return f"[[ ## answer ## ]]\n{model} {seed}\n\n[[ ## completed ## ]]"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def server():
    with Simulator(say, ["m"]) as running:
        yield running


# An ordinary dspy LM

def test_predict_under_it_sync_and_async(server):
    ask = dspy.Predict("question -> answer")
    with dspy.context(lm=lm("hosted_vllm/m", api_base=server.url, seed=7, temperature=0.9, cache=False)):
        assert ask(question="a").answer == "m 7"
        assert ask(question="a", config={"n": 3}).completions.answer == ["m 7", "m 8", "m 9"]
        assert asyncio.run(ask.acall(question="a", config={"n": 2, "seed": 1})).completions.answer == ["m 1", "m 2"]
    assert [(r["n"], r["seed"], r["temperature"], r["max_tokens"]) for r in server.requests] == [
        (1, 7, 0.9, 512), (3, 7, 0.9, 512), (2, 1, 0.9, 512)], "n draws are one request"


def test_draws_without_a_seed_differ(server):
    model = lm("hosted_vllm/m", api_base=server.url, cache=False)
    assert len({text for _ in range(3) for text in model("hello", n=4)}) == 12


def test_a_server_that_ignores_n_is_asked_again():
    async def answer(reader, writer):
        while await reader.readline() not in (b"\r\n", b""):
            pass
        body = json.dumps({"choices": [{"message": {"content": "one"}}],
                           "usage": {"prompt_tokens": 3, "completion_tokens": 1}}).encode()
        writer.write(b"HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async def whole():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as served:
            port = served.sockets[0].getsockname()[1]
            model = lm("hosted_vllm/m", api_base=f"http://127.0.0.1:{port}/v1", cache=False)
            return await model.acall("hello", n=3), model.history[-1]["usage"]

    texts, usage = asyncio.run(whole())
    assert texts == ["one"] * 3 and (usage["prompt_tokens"], usage["completion_tokens"]) == (9, 3)


def test_a_request_of_dspys_own_and_an_empty_reply():
    from dspy import lm15

    with Simulator(lambda *_: "", ["m"]) as server:
        model = lm("hosted_vllm/m", api_base=server.url, n=3, cache=False)
        reply = model(lm15.Request(model="hosted_vllm/m", system="be brief", messages=(lm15.Message.user("hello"),)))
        assert reply.text == "" and reply.finish_reason == "stop" and server.requests[0]["n"] == 1
        assert [message["role"] for message in server.requests[0]["messages"]] == ["system", "user"]
        assert model("hello") == [""] * 3


def test_usage_is_that_of_the_request(server):
    model = lm("hosted_vllm/m", api_base=server.url, cache=False)
    with dspy.track_usage() as tracker:
        model("one two three", n=4)
    usage = tracker.get_total_tokens()["hosted_vllm/m"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, server.completion_tokens)


def test_what_passes_is_sent_again_and_what_does_not_is_one_line():
    with Simulator(say, ["m"], errors=Errors(0.5, ("429",), retry_after=0.01, seed=3)) as server:
        model = lm("hosted_vllm/m", api_base=server.url, api_key=KEY, cache=False, num_retries=20)
        assert all(model(f"{i}")[0].startswith("[[") for i in range(8))
        assert {row["status"] for row in server.log()} == {200, 429}
        with pytest.raises(LMError, match="`absent` does not exist") as caught:
            lm("hosted_vllm/absent", api_base=server.url, api_key=KEY)("hello")
        assert KEY not in str(caught.value) and "\n" not in str(caught.value)
        for option in ({"top_p": 0.5}, {"logprobs": True, "top_logprobs": 3}, {"tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]}):
            with pytest.raises(LMError, match="a call takes no"):
                model("hello", **option)
        with pytest.raises(LMError, match="text only"):
            model(messages=[{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}])


def test_further_fields_travel_with_every_request(server):
    lm("hosted_vllm/m", api_base=server.url, top_p=0.5, stop=["m"], cache=False)("hello", stop=["x", "y"])
    request = server.requests[0]
    assert request["top_p"] == 0.5 and request["stop"] == ["x", "y"]


class Answer(BaseModel):
    number: int


def test_structured_output_travels_as_a_strict_schema():
    with Simulator(lambda *_: '{"number": 3}', ["m"]) as server:
        model = lm("hosted_vllm/m", api_base=server.url, cache=False)
        assert model("hello", response_format=Answer) == ['{"number": 3}']
        with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
            assert dspy.Predict("question -> number: int")(question="a").number == 3
        formats = [request["response_format"] for request in server.requests]
        assert [format_["type"] for format_ in formats] == ["json_schema"] * 2
        assert formats[0]["json_schema"]["strict"] and "number" in formats[0]["json_schema"]["schema"]["properties"]
        model("hello", response_format={"type": "json_object"})
        assert server.requests[-1]["response_format"] == {"type": "json_object"}


def test_adapters_of_dspy_ask_for_schemas_where_they_are_kept(server):
    assert "response_format" in lm("hosted_vllm/m", api_base=server.url).supported_params
    assert lm("anthropic/claude-3-haiku-20240307", api_key=KEY).supports_response_schema
    embedded = lm(GAME24)
    assert "response_format" not in embedded.supported_params and "seed" in embedded.supported_params
    with pytest.raises(LMError, match="cannot be held to a schema"):
        embedded("value 4 6", response_format=Answer)


def test_options_become_fields_and_back():
    for options in (ReplyOptions(), ReplyOptions(("a", "b"), True), ReplyOptions(schema={"type": "object"}),
                    ReplyOptions(schema={"type": "object", "properties": {}})):
        assert read_options(asked_for(options)) == options
    with pytest.raises(ModelError, match="response_format"):
        read_options({"response_format": {"type": "regex"}})


def test_streaming_gives_the_whole_reply(server):
    with dspy.context(lm=lm("hosted_vllm/m", api_base=server.url, seed=7, cache=False)):
        stream = dspy.streamify(dspy.Predict("question -> answer"), async_streaming=False)
        assert [value.answer for value in stream(question="a") if isinstance(value, dspy.Prediction)] == ["m 7"]


# The cache of dspy

def test_two_servers_of_one_name_share_no_cached_reply():
    replies = []
    for word in ("first", "second"):
        with Simulator(lambda *_, word=word: word, ["m"]) as server:
            model = lm("hosted_vllm/m", api_base=server.url, seed=1)
            replies += [model("the same question"), model("the same question")]
            assert len(server.log()) == 1, "the second is dspy's own"
            assert model.history[-1]["usage"] == {}
            model("the same question", cache=False)
            model("the same question", rollout_id=1, temperature=0.5)
            assert len(server.log()) == 3
    assert replies == [["first"]] * 2 + [["second"]] * 2


def test_new_weights_under_an_old_directory_share_none_either(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "changing")
    first = lm(f"local/{folder}").engine.identity
    tiny_llama(folder, seed=1)
    assert lm(f"local/{folder}").engine.identity != first


# As the model of this package's modules

def test_it_is_the_lm_of_value_and_policy():
    env, key = GameOf24(), KEY
    from stl_programs.testing.game24_script import game24_script

    with Simulator(game24_script, ["m"]) as server:
        model = lm("hosted_vllm/m", api_base=server.url, api_key=key)
        assert models.load(model) is model.engine.stl_model and models.load(model).endpoint == server.url
        program = BeamSearch(env, Policy(env.policy_signature, model), Value(env.value_signature, model, samples=3),
                             width=2)
        [result] = asyncio.run(run_tasks(program, [env.task("4 5 6 10")]))
        assert result.error is None and {request["n"] for request in server.requests} == {1, 3}
    assert models.load(lm(GAME24)) is models.load(dspy.LM(GAME24)) is models.load(GAME24)
    value = Value(env.value_signature, lm(GAME24), samples=2)
    task = env.task("4 5 6 10")
    assert run_sync(value.estimate(Situation(env, task, env.reset(task)))).score is not None


def test_options_that_a_model_cannot_have_are_refused():
    with pytest.raises(ModelError, match="runs in this process and takes no api_base and no top_p"):
        lm(GAME24, api_base="http://127.0.0.1:1/v1", top_p=0.5)
    with pytest.raises(ModelError, match="names no provider"):
        lm("gpt-4o")
    with pytest.raises(ModelError, match="no embedded model"):
        lm("embedded/none")
    with pytest.raises(AdapterError, match="not registered"):
        lm(f"{GAME24}@never")


# Saving, and what is never shown

def test_a_saved_lm_comes_back_without_its_key(server, monkeypatch, tmp_path):
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", KEY)
    url = server.url.replace("//", "//user:p4ssw0rd@") + f"?token={KEY}"
    model = lm("hosted_vllm/m", api_base=[url, "http://127.0.0.1:1/v1"], api_key=KEY, seed=7, cache=False,
               access_token=KEY, timeout=30)
    ask = dspy.Predict("question -> answer")
    ask.lm = model
    ask.save(tmp_path / "program.json")
    shown = (tmp_path / "program.json").read_text() + repr(model) + repr(model.engine) + str(model.kwargs)
    shown += repr(model.engine.stl_model.pool.servers)
    assert KEY not in shown and "p4ssw0rd" not in shown
    assert f"{server.url},http://127.0.0.1:1/v1" in shown
    again = dspy.Predict("question -> answer")
    again.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
    assert type(again.lm) is type(model) and again.lm.engine.stl_model.endpoint == model.engine.stl_model.endpoint
    assert isinstance(BaseLM.load_state(model.dump_state(), allow_custom_lm_class=True), dspy.LM)
    assert again(question="a", config={"n": 2}).completions.answer == ["m 7", "m 8"]


def test_copies_of_a_program_share_the_model(server):
    ask = dspy.Predict("question -> answer")
    ask.lm = lm("hosted_vllm/m", api_base=server.url)
    assert ask.deepcopy().lm.engine is ask.lm.engine and ask.lm.copy(temperature=0.3).engine is ask.lm.engine


def test_no_key_reaches_an_error_a_program_or_a_journal(tmp_path):
    def leak(messages, model, seed):
        raise RuntimeError(f"the key was {KEY}")

    env = GameOf24()
    with Simulator(leak, ["m"]) as server:
        model = lm("hosted_vllm/m", api_base=server.url, api_key=KEY, num_retries=0)
        with pytest.raises(LMError, match=r"the key was \*\*\*"):
            model("hello", cache=False)
        program = BeamSearch(env, LegalMoves(), Value(env.value_signature, model, samples=1), width=1)
        [result] = asyncio.run(run_tasks(program, [env.task("4 5 6 10")], journal=tmp_path / "journal", retries=1,
                                         backoff=0.01))
        program.save(tmp_path / "program.json")
    assert result.error and "the key was ***" in result.error and KEY not in result.error
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2 and not any(KEY.encode() in path.read_bytes() for path in files)


# LiteLLM's providers

@pytest.fixture(scope="module")
def litellm():
    register_with_litellm()
    register_with_litellm()
    import litellm

    assert [item["provider"] for item in litellm.custom_provider_map].count("embedded") == 1
    return litellm


def test_plain_litellm_takes_the_models_of_this_process(litellm):
    fields = {"messages": PROMPT, "n": 3, "seed": 5, "temperature": 1.0, "max_tokens": 40}
    reply = litellm.completion(GAME24, **fields)
    texts = [choice.message.content for choice in reply.choices]
    own = run_sync(models.load(GAME24).complete(Request(PROMPT, (5, 6, 7), max_tokens=40)))
    assert texts == own.texts and len(set(texts)) > 1
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (own.prompt_tokens, own.completion_tokens)
    assert reply._hidden_params["response_cost"] == 0.0 == litellm.completion_cost(reply) and reply.model == GAME24
    again = asyncio.run(litellm.acompletion(GAME24, **fields))
    assert [choice.message.content for choice in again.choices] == texts
    assert litellm.completion(GAME24, messages=PROMPT, max_tokens=2).choices[0].finish_reason == "length"


def test_log_probabilities_and_stops_through_litellm(litellm):
    reply = litellm.completion(GAME24, messages=PROMPT, seed=5, logprobs=True, stop=["->"])
    request = Request(PROMPT, (5,), options=ReplyOptions(("->",), True))
    own = run_sync(models.load(GAME24).complete(request))
    found = [(token.token, token.logprob) for token in reply.choices[0].logprobs.content]
    assert found == own.logprobs[0] and reply.choices[0].message.content == own.texts[0]
    third = run_sync(LiteLLMModel(GAME24).complete(request))
    assert (third.texts, third.logprobs, third.finish_reasons) == (own.texts, own.logprobs, own.finish_reasons)


def test_local_directories_and_adapters_too(litellm, tiny, tmp_path):
    path = random_adapter(tiny, tmp_path / "adapter", 1)
    name = f"local/{tiny}@door-v1"
    models.register_adapter(name, path)
    try:
        fields = {"messages": PROMPT, "seed": 1, "max_tokens": 12}
        texts = [litellm.completion(model, **fields).choices[0].message.content for model in (f"local/{tiny}", name)]
        assert texts[0] != texts[1]
        assert [lm(model, seed=1, max_tokens=12, cache=False)("value 4 6")[0] for model in (f"local/{tiny}", name)
                ] == texts
        assert dspy.LM(name, seed=1, max_tokens=12, temperature=1.0, cache=False)("value 4 6") == texts[1:]
    finally:
        models.unregister_adapter(name)
    with pytest.raises(litellm.BadRequestError, match="not registered"):
        litellm.completion(name, messages=PROMPT)


def test_what_these_models_do_not_take_is_a_bad_request(litellm):
    with pytest.raises(litellm.BadRequestError, match="takes no top_p"):
        litellm.completion(GAME24, messages=PROMPT, top_p=0.5)
    assert litellm.completion(GAME24, messages=PROMPT, top_p=0.5, drop_params=True).choices
    with pytest.raises(litellm.BadRequestError, match="has no token"):
        litellm.completion(GAME24, messages=[{"role": "user", "content": "value 999999 wörter"}])


def test_options_that_a_provider_lacks_are_refused_before_anything_is_sent():
    model = LiteLLMModel("anthropic/claude-3-haiku-20240307", api_key=KEY)
    with pytest.raises(ModelError, match="passes no logprobs to this provider"):
        run_sync(model.complete(Request(PROMPT, (0,), options=ReplyOptions(logprobs=True))))


def test_the_package_does_not_import_litellm():
    heavy = ("litellm", "torch", "aiohttp", "transformers")
    code = f"import stl_programs.models.doors.dspy_lm, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
