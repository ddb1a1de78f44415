"""The simulator answers as a function of the request, counts what it did, and fails on demand."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stl_programs import models
from stl_programs.engine import run_sync
from stl_programs.errors import ModelError
from stl_programs.models import ReplyOptions, Request
from stl_programs.models.doors.dspy_lm import lm
from stl_programs.models.served.direct import DirectModel
from stl_programs.models.served.remote import LiteLLMModel
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.simulator import Errors, Latency, Simulator, SimulatorProcess
from stl_programs.testing.traffic import BLOCK, KINDS, PrefixCache

ROOT = Path(__file__).parents[3]


def say(messages, model, seed):
    return f"{model} draws {seed} from {messages[-1]['content']}"


def post(url, path, body):
    """(status, JSON or text, headers) of one POST; a str is sent as it is."""
    connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=30)
    try:
        connection.request("POST", path, body if isinstance(body, str) else json.dumps(body))
        response = connection.getresponse()
        text = response.read().decode()
        with contextlib.suppress(ValueError):
            return response.status, json.loads(text), response.headers
        return response.status, text, response.headers
    finally:
        connection.close()


def ask(url, prompt="hello there", **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], **fields}
    return post(url, "/v1/chat/completions", body)


def get(url, path):
    connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=30)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def texts(reply):
    return [choice["message"]["content"] for choice in reply["choices"]]


def test_draws_are_a_function_of_prompt_and_seed():
    with Simulator(say, ["m"]) as server:
        _, reply, _ = ask(server.url, n=3, seed=5)
        assert texts(reply) == [f"m draws {seed} from hello there" for seed in (5, 6, 7)]
        assert texts(ask(server.url, n=3, seed=5)[1]) == texts(reply)
        assert texts(ask(server.url)[1]) == ["m draws 0 from hello there"]
        assert reply["usage"]["prompt_tokens"] == 2 and reply["usage"]["completion_tokens"] == 3 * 6
        assert (server.prompt_tokens, server.completion_tokens) == (3 * 2, 7 * 6)
        assert [request.get("n") for request in server.requests] == [3, 3, None]


def test_max_tokens_cuts_after_that_many_words():
    with Simulator(lambda *_: "one\ntwo  three four", ["m"]) as server:
        _, reply, _ = ask(server.url, max_tokens=3)
        assert texts(reply) == ["one\ntwo  three"] and reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] == 3
        _, reply, _ = ask(server.url, max_completion_tokens=4)
        assert texts(reply) == ["one\ntwo  three four"] and reply["choices"][0]["finish_reason"] == "stop"


def test_the_prefix_cache_counts_whole_blocks_and_forgets_the_oldest():
    words = [str(i) for i in range(40)]
    cache = PrefixCache(3)
    assert cache.read("m", words) == 0
    assert cache.read("m", words) == 2 * BLOCK
    assert cache.read("m", words[:32]) == BLOCK, "the last token is always computed"
    assert cache.read("other", words) == 0, "models share nothing"
    assert cache.read("m", words) == BLOCK, "of three blocks the other model took two"
    assert cache.read("m", ["x", *words]) == 0


def test_cached_tokens_are_reported_as_openai_does():
    prompt = " ".join(map(str, range(50)))
    with Simulator(say, ["m"]) as server:
        cached = [ask(server.url, p)[1]["usage"]["prompt_tokens_details"]["cached_tokens"]
                  for p in (prompt, prompt, f"{prompt} and more", f"first {prompt}")]
        assert cached == [0, 48, 48, 0] and server.cached_tokens == 96
        assert [row["cached_tokens"] for row in server.log()] == cached
        server.reset()
        assert server.log() == [] and server.stats()["prompt_tokens"] == 0
        assert ask(server.url, prompt)[1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_capacity_is_a_queue_in_order_of_arrival():
    with Simulator(say, ["m"], capacity=2, latency=Latency(0.05)) as server:
        with ThreadPoolExecutor(8) as pool:
            assert all(status == 200 for status, _, _ in pool.map(lambda i: ask(server.url, f"p {i}"), range(8)))
        rows, stats = server.log(), server.stats()
    assert stats["peak_running"] == 2 and stats["peak_in_flight"] > 2 and stats["in_flight"] == 0
    assert [row["start"] for row in rows] == sorted(row["start"] for row in rows)
    assert all(row["arrival"] <= row["start"] <= row["end"] - 0.04 for row in rows)
    for row in rows:
        assert sum(other["start"] < row["start"] < other["end"] for other in rows) <= 1


def test_latency_adds_up():
    latency = Latency(seconds=0.5, prefill_ms=2.0, decode_ms=30.0)
    assert latency.of("p", 0, uncached=100, longest=10) == pytest.approx(0.5 + 0.2 + 0.3)
    with Simulator(say, ["m"], latency=Latency(decode_ms=20.0)) as server:
        ask(server.url, "a b c", n=3)
        row = server.log()[0]
    assert row["end"] - row["start"] >= 7 * 0.02 - 0.005


def test_log_normal_latencies_repeat():
    latency = Latency(seconds=0.5, sigma=0.8, seed=1)
    drawn = [latency.of(f"prompt {i}", 0, 0, 0) for i in range(4000)]
    assert drawn == [latency.of(f"prompt {i}", 0, 0, 0) for i in range(4000)]
    assert statistics.median(drawn) == pytest.approx(0.5, rel=0.1)
    assert statistics.stdev(map(math.log, drawn)) == pytest.approx(0.8, rel=0.1)
    assert latency.of("prompt 0", 1, 0, 0) != drawn[0] != Latency(0.5, 0.8, seed=2).of("prompt 0", 0, 0, 0)


def test_failures_are_a_function_of_key_and_attempt():
    errors = Errors(rate=0.3)
    drawn = [[errors.of(f"key {i}", attempt) for attempt in (1, 2)] for i in range(2000)]
    assert drawn == [[errors.of(f"key {i}", attempt) for attempt in (1, 2)] for i in range(2000)]
    failed = [first for first, _ in drawn if first]
    assert len(failed) / 2000 == pytest.approx(0.3, abs=0.04) and set(failed) == set(KINDS)
    passed = sum(second is None for first, second in drawn if first)
    assert passed / len(failed) == pytest.approx(0.7, abs=0.06), "a retry draws anew"


@pytest.mark.parametrize("options", [{"rate": 2.0}, {"kinds": ("418",)}, {"kinds": ()}])
def test_impossible_errors_are_refused(options):
    with pytest.raises(ValueError):
        Errors(**options)


def test_each_kind_of_failure_on_the_wire():
    def one(kind):
        with Simulator(say, ["m"], errors=Errors(1.0, (kind,), timeout_seconds=0.05, retry_after=0.25)) as server:
            try:
                return (*ask(server.url), server.log()[0], server.completion_tokens)
            finally:
                assert server.log()[0]["failure"] == kind

    status, body, headers, row, tokens = one("429")
    assert status == row["status"] == 429 and headers["Retry-After"] == "0.25" and "error" in body and tokens == 0
    assert one("500")[0] == 500
    with pytest.raises((http.client.HTTPException, OSError)):
        one("timeout")
    status, body, _, _, tokens = one("cut")
    assert status == 200 and isinstance(body, str) and body.startswith("{") and tokens == 6
    status, body, _, _, _ = one("wrong")
    assert status == 200 and texts(body) == ["I do not know"]


@pytest.mark.parametrize(("body", "status", "why"), [
    ("{not json", 400, "JSONDecodeError"), ([], 400, "not a chat"), ({"model": "m"}, 400, "messages"),
    ({"model": "m", "messages": []}, 400, "at least 1 message"),
    ({"model": "m", "messages": [{"role": "user"}]}, 400, "content"),
    ({"model": "m", "messages": [{"content": "x"}], "n": 10**6}, 400, "n from 1"),
    ({"model": "absent", "messages": [{"content": "x"}]}, 404, "`absent` does not exist")])
def test_bad_requests_are_named(body, status, why):
    with Simulator(say, ["m"]) as server:
        found, reply, _ = post(server.url, "/v1/chat/completions", body)
        assert found == status == server.log()[0]["status"] and why in reply["error"]["message"]
        assert server.requests == []


def test_a_reply_function_that_raises_says_so():
    with Simulator(lambda *_: 1 / 0, ["m"]) as server:
        status, reply, _ = ask(server.url)
        assert status == 500 and "ZeroDivisionError" in reply["error"]["message"]
        assert server.stats()["running"] == 0


def test_adapters_load_and_unload_as_on_vllm(tmp_path):
    with Simulator(say, ["m"]) as server:
        adapter = {"lora_name": "m@v1", "lora_path": str(tmp_path)}
        assert post(server.url, "/v1/load_lora_adapter", {"lora_name": "m@v1"})[0] == 400
        assert post(server.url, "/v1/load_lora_adapter", adapter | {"lora_path": str(tmp_path / "none")})[0] == 404
        assert post(server.url, "/v1/load_lora_adapter", adapter)[0] == 200
        status, reply, _ = post(server.url, "/v1/load_lora_adapter", adapter)
        assert status == 400 and "already been loaded" in reply["error"]["message"]
        assert texts(ask(server.url, model="m@v1")[1]) == ["m@v1 draws 0 from hello there"]
        assert post(server.url, "/v1/unload_lora_adapter", {"lora_name": "m@v1"})[0] == 200
        assert ask(server.url, model="m@v1")[0] == 404
        assert post(server.url, "/v1/unload_lora_adapter", {"lora_name": "m"})[0] == 404


def test_adapters_are_listed_with_where_they_came_from(tmp_path):
    with Simulator(say, ["m"]) as server:
        post(server.url, "/v1/load_lora_adapter", {"lora_name": "m@v1", "lora_path": str(tmp_path)})
        assert [row["parent"] for row in get(server.url, "/v1/models")["data"]] == [None, "m"]
        assert get(server.url, "/v1/models")["data"][1]["root"] == str(tmp_path)


# A model behind it

def test_the_same_draws_in_this_process_over_http_and_through_litellm():
    def draws(model, **options):
        return run_sync(model.complete(Request([{"role": "user", "content": "value 4 6"}], (5, 6, 7), 0.9, 40,
                                               ReplyOptions(logprobs=True))))

    own = draws(models.load("embedded/game24"))
    with Simulator(model="embedded/game24") as server:
        assert get(server.url, "/v1/models")["data"][0]["root"] == str(models.EMBEDDED / "game24")
        for kind in (DirectModel, LiteLLMModel):
            reply = draws(kind("hosted_vllm/game24", api_base=server.url))
            assert (reply.texts, reply.logprobs) == (own.texts, own.logprobs)
            assert reply.finish_reasons == own.finish_reasons
            assert (reply.prompt_tokens, reply.completion_tokens) == (own.prompt_tokens, own.completion_tokens)
        assert server.log()[0]["prompt_tokens"] == own.prompt_tokens
        assert lm("hosted_vllm/game24", api_base=server.url, seed=5, temperature=0.9, cache=False)(
            "value 4 6", n=3) == own.texts


def test_a_played_model_answers_what_it_cannot_read_with_words_of_no_form():
    with Simulator(model="embedded/game24", errors=Errors(0.0)) as server:
        status, reply, _ = ask(server.url, "wörter", model="game24")
        assert status == 200 and reply["choices"][0]["message"]["content"] == "I do not know"
        status, reply, _ = ask(server.url, "value 4 6", model="game24", max_tokens=2)
        assert status == 200 and reply["choices"][0]["finish_reason"] == "length"
        status, reply, _ = ask(server.url, "value 4 6", model="game24", response_format={"type": "regex"})
        assert status == 400 and "json_schema" in reply["error"]["message"]


@pytest.mark.slow
def test_a_process_plays_a_model_too():
    with SimulatorProcess(model="embedded/game24", models=["tiny"]) as server:
        status, reply, _ = ask(server.url, "value 4 6", model="tiny", seed=5, max_tokens=40)
        assert status == 200 and texts(reply) == run_sync(models.load("embedded/game24").complete(
            Request([{"role": "user", "content": "value 4 6"}], (5,), max_tokens=40))).texts


@pytest.mark.parametrize("options", [{}, {"reply": say, "models": ["m"], "model": "embedded/game24"}, {"reply": say}])
def test_a_simulator_answers_by_one_thing_under_some_name(options):
    with pytest.raises(ValueError, match=r"answers by one|name what"):
        Simulator(**options)


def test_a_process_of_its_own_answers_the_same():
    prompt = "State: 4 5 6"
    with Simulator(game24_script, ["m"]) as server:
        expected = texts(ask(server.url, prompt, n=4, seed=3)[1])
    options = {"latency": Latency(0.01, sigma=0.5), "errors": Errors(0.5, ("429", "cut"), seed=9), "capacity": 3}
    with SimulatorProcess("stl_programs.testing.game24_script:game24_script", ["m", "v"]) as server:
        assert texts(ask(server.url, prompt, n=4, seed=3)[1]) == expected
        row, = server.log()
        assert row["status"] == 200 and row["n"] == 4 and row["model"] == "m" and row["key"]
        assert abs(time.monotonic() - row["end"]) < 600, "the clock of this machine"
        assert server.stats()["served"] == 1
        server.reset()
        assert server.log() == [] and server.stats()["requests"] == 0
    with SimulatorProcess("stl_programs.testing.game24_script:game24_script", ["m"], **options) as server:
        found = [ask(server.url, prompt, seed=seed)[0] for seed in range(12)]
        kinds = [row["failure"] for row in server.log()]
    errors = options["errors"]
    assert {"429", "cut", None} == set(kinds) and found == [429 if kind == "429" else 200 for kind in kinds]
    assert len(kinds) == 12 and errors.kinds == ("429", "cut")


def test_a_process_that_cannot_start_is_an_error(capfd):
    with pytest.raises(ModelError, match="did not start"), SimulatorProcess("no.such.module:reply", ["m"]):
        pass
    assert "ModuleNotFoundError" in capfd.readouterr().err


def test_the_process_dies_with_its_parent():
    code = ("import time\nfrom stl_programs.testing.simulator import SimulatorProcess\n"
            "server = SimulatorProcess('stl_programs.testing.game24_script:game24_script', ['m']).__enter__()\n"
            "print(server.url, flush=True)\ntime.sleep(600)\n")
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        url = parent.stdout.readline().strip()
        assert ask(url, "State: 4 6")[0] == 200
    finally:
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            ask(url)
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the simulator outlived its parent")


def test_leaving_ends_the_thread_even_with_a_request_held():
    with ThreadPoolExecutor(1) as pool:
        with Simulator(say, ["m"], errors=Errors(1.0, ("timeout",), timeout_seconds=600.0)) as server:
            held = pool.submit(ask, server.url)
            while not server.log():
                time.sleep(0.01)
        with pytest.raises((http.client.HTTPException, OSError)):
            held.result(timeout=60)
    assert "simulator" not in {thread.name for thread in threading.enumerate()}
