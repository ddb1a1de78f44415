"""Several servers of one model: busy ones wait, dead ones cost no task, those that come back have their adapters."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time

import pytest
from aiohttp import web

from stl_programs import BeamSearch, GameOf24, LegalMoves, Value, models
from stl_programs.engine import run_tasks
from stl_programs.engine.gate import Gate
from stl_programs.errors import AdapterError, ModelError, TransientError
from stl_programs.models.artifacts import weights_hash
from stl_programs.models.base import Request
from stl_programs.models.served import pools as servers
from stl_programs.models.served.direct import DirectModel
from stl_programs.models.served.pools import Pool, Server
from stl_programs.models.served.remote import LiteLLMModel
from stl_programs.models.served.transports import open_remote
from stl_programs.testing.simulator import Latency, Simulator, SimulatorProcess
from tests import contract

SCRIPT = "stl_programs.testing.game24_script:game24_script"
PROMPT = [{"role": "user", "content": "hello"}]


def say(messages, model, seed):
    return f"{model} draws {seed}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_one_loop(work):
    async def whole():
        try:
            return await work()
        finally:
            await models.close_sessions()

    return asyncio.run(whole())


def ask(model, seeds=(0,), **options):
    return in_one_loop(lambda: model.complete(Request(PROMPT, tuple(seeds), max_tokens=9, **options)))


def adapter(folder, base_hash=None, weights=b"weights"):
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    if base_hash:
        (folder / "provenance.json").write_text(json.dumps({"base_sha256": base_hash}))
    return folder


@pytest.fixture
def hasty(monkeypatch):
    """Servers that failed are asked again almost at once."""
    monkeypatch.setattr(servers, "ASIDE_SECONDS", 0.05)


def test_the_least_busy_server_takes_the_next_request():
    async def crowd(model):
        await asyncio.gather(*(model.complete(Request(PROMPT, (i,), max_tokens=9)) for i in range(20)))

    with Simulator(say, ["m"], latency=Latency(0.2)) as one, Simulator(say, ["m"], latency=Latency(0.2)) as two:
        model = DirectModel("hosted_vllm/m", api_base=f"{one.url}, {two.url}")
        assert model.endpoint == f"{one.url},{two.url}"
        in_one_loop(lambda: crowd(model))
        assert [len(server.log()) for server in (one, two)] == [10, 10]
        assert [server.in_flight for server in model.pool.servers] == [0, 0]


def test_models_of_one_server_know_of_each_others_requests():
    with Simulator(say, ["m", "v"]) as one:
        policy, value = (DirectModel(f"hosted_vllm/{name}", api_base=one.url) for name in "mv")
        assert policy.pool.servers[0] is value.pool.servers[0]


def test_a_gate_holds_its_bound_for_every_server():
    async def count(gate, endpoint):
        held = 0

        async def hold():
            nonlocal held
            async with gate.slot(endpoint, 0):
                held += 1
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(hold()) for _ in range(20)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return held

    assert asyncio.run(count(Gate(4), "http://a/v1")) == 4
    assert asyncio.run(count(Gate(4), "http://a/v1,http://b/v1,http://c/v1")) == 12
    assert asyncio.run(count(Gate(4, total=5), "http://a/v1,http://b/v1")) == 5
    assert asyncio.run(count(Gate(4, limits={"http://a/v1,http://b/v1": 3}), "http://a/v1,http://b/v1")) == 3


def test_a_server_that_does_not_answer_is_set_aside():
    with Simulator(say, ["m"]) as alive:
        model = DirectModel("hosted_vllm/m", api_base=f"http://127.0.0.1:{free_port()}/v1,{alive.url}")
        with pytest.raises(TransientError, match="no connection") as caught:
            ask(model)
        assert caught.value.retry_after == 0.0 and not caught.value.maybe_paid, "elsewhere, at once"
        assert [ask(model, [seed]).texts for seed in range(5)] == [[f"m draws {seed}"] for seed in range(5)]
    with pytest.raises(TransientError) as caught:
        ask(model)
    assert caught.value.retry_after is None, "there is no elsewhere"
    with pytest.raises(TransientError, match="no server is up: no answer from http") as caught:
        ask(model)
    assert not caught.value.maybe_paid and model.pool.servers[0].in_flight == model.pool.servers[1].in_flight == 0


def test_a_server_that_only_refuses_does_not_draw_all_requests():
    with Simulator(lambda *_: 1 / 0, ["m"]) as broken, Simulator(say, ["m"]) as sound:
        model = DirectModel("hosted_vllm/m", api_base=f"{broken.url},{sound.url}")
        for _ in range(servers.FAILURES_IN_A_ROW):
            with pytest.raises(TransientError, match="500"):
                ask(model)
        assert [ask(model).texts for _ in range(5)] == [["m draws 0"]] * 5
        assert len(broken.log()) == servers.FAILURES_IN_A_ROW


def test_check_names_the_servers_that_cannot_be_used():
    with Simulator(say, ["m"]) as sound, Simulator(say, ["other"]) as wrong:
        dead = f"http://127.0.0.1:{free_port()}/v1"
        DirectModel("hosted_vllm/m", api_base=sound.url).check()
        with pytest.raises(ModelError) as caught, pytest.warns(UserWarning, match="lists other, not 'm'"):
            DirectModel("hosted_vllm/m", api_base=f"{sound.url},{dead},{wrong.url}").check()
        text = str(caught.value)
        assert "1 of 3 servers cannot be used" in text and sound.url not in text and "\n" not in text
        assert f"no answer from {dead}" in text


@pytest.mark.parametrize("urls", ["127.0.0.1:8000/v1", "http://127.0.0.1:99999/v1", "http://", ","])
def test_what_is_no_url_is_refused(urls):
    with pytest.raises(ModelError, match="base URL"):
        DirectModel("hosted_vllm/m", api_base=urls)


def test_servers_come_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://127.0.0.1:1/v1,http://127.0.0.1:2/v1")
    assert open_remote("hosted_vllm/m").endpoint == "http://127.0.0.1:1/v1,http://127.0.0.1:2/v1"
    with pytest.raises(ModelError, match="one base URL"):
        LiteLLMModel("hosted_vllm/m")


def test_adapters_are_loaded_everywhere_or_nowhere(tmp_path):
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two", weights=b"others")
    with Simulator(say, ["m"]) as a, Simulator(say, ["m"]) as b:
        model = DirectModel("hosted_vllm/m", api_base=f"{a.url},{b.url}")
        model.load_adapter("hosted_vllm/m@v1", one)
        model.load_adapter("hosted_vllm/m@v1", one)
        assert [server.service.models for server in (a, b)] == [["m", "m@v1"]] * 2
        with pytest.raises(AdapterError, match=f"serves m@v1 already, from {one}; give the adapter {two} a new"):
            model.load_adapter("hosted_vllm/m@v1", two)
        DirectModel("hosted_vllm/m", api_base=b.url).load_adapter("hosted_vllm/m@v2", one)
        with pytest.raises(AdapterError, match="serves m@v2 already"):
            model.load_adapter("hosted_vllm/m@v2", two)
        assert a.service.models == ["m", "m@v1"], "what the other refused is taken back"
        model.unload_adapter("hosted_vllm/m@v1")
        assert a.service.models == ["m"] and b.service.models == ["m", "m@v2"]
        with pytest.raises(AdapterError, match="serves no adapter m@v1"):
            model.unload_adapter("hosted_vllm/m@v1")


def test_weights_that_change_in_place_are_refused(tmp_path):
    folder = adapter(tmp_path / "one")
    with Simulator(say, ["m"]) as server:
        model = DirectModel("hosted_vllm/m", api_base=server.url)
        model.load_adapter("hosted_vllm/m@v1", folder)
        model.unload_adapter("hosted_vllm/m@v1")
        (folder / "adapter_model.safetensors").write_bytes(b"new")
        with pytest.raises(AdapterError, match=r"held other weights when .* new directory"):
            model.load_adapter("hosted_vllm/m@v2", folder)


def test_an_adapter_of_another_base_is_refused_before_anything_is_sent(tmp_path):
    base = models.load("embedded/game24").weights()
    with Simulator(model="embedded/game24") as server:
        model = DirectModel("hosted_vllm/game24", api_base=server.url)
        with pytest.raises(AdapterError, match=f"trained on base {'f' * 12}; {server.url} serves "
                                               f"{weights_hash(base)[:12]}"):
            model.load_adapter("hosted_vllm/game24@v1", adapter(tmp_path / "foreign", "f" * 64))
        with pytest.raises(AdapterError, match=r"adapter_model\.safetensors is missing"):
            folder = adapter(tmp_path / "empty")
            (folder / "adapter_model.safetensors").unlink()
            model.load_adapter("hosted_vllm/game24@v1", folder)
        assert server.service.models == ["game24"]


def test_a_server_that_was_started_anew_gets_its_adapters_again(tmp_path, hasty):
    folder, port = adapter(tmp_path / "one"), free_port()
    name = "hosted_vllm/m@v1"
    with Simulator(say, ["m"]) as other:
        with Simulator(say, ["m"], port=port) as first:
            model = DirectModel("hosted_vllm/m", api_base=f"{first.url},{other.url}")
            model.load_adapter(name, folder)
            assert ask(model, adapter=name).texts == ["m@v1 draws 0"] and len(first.log()) == 1
        with pytest.raises(TransientError):
            ask(model, adapter=name)
        model.load_adapter("hosted_vllm/m@v2", adapter(tmp_path / "two"))  # while it is down
        time.sleep(0.1)
        with Simulator(say, ["m"], port=port) as first:
            assert ask(model, adapter=name).texts == ["m@v1 draws 0"]
            assert first.service.models == ["m", "m@v1", "m@v2"] and len(first.log()) == 1


def test_a_server_that_was_started_anew_unseen_gets_them_too(tmp_path):
    folder, port, name = adapter(tmp_path / "one"), free_port(), "hosted_vllm/m@v1"
    with Simulator(say, ["m"], port=port) as server:
        model = DirectModel("hosted_vllm/m", api_base=server.url)
        model.load_adapter(name, folder)
    with Simulator(say, ["m"], port=port) as server:
        with pytest.raises(TransientError, match="404") as caught:
            ask(model, adapter=name)
        assert caught.value.retry_after == 0.0
        assert ask(model, adapter=name).texts == ["m@v1 draws 0"]
        with pytest.raises(ModelError, match="`m@v2` does not exist") as caught:
            ask(model, adapter="hosted_vllm/m@v2")
        assert not isinstance(caught.value, TransientError), "never loaded here: it does not pass when sent again"


class FewMoves(LegalMoves):
    async def aforward(self, *arguments, **options):
        return (await super().aforward(*arguments, **options))[:4]


@pytest.mark.slow
def test_killing_one_of_two_servers_costs_no_task(hasty):
    env, port = GameOf24(), free_port()
    tasks = [env.task("4 5 6 10"), *(env.task(f"{n} {n} {rest}") for n in range(1, 14)
                                     for rest in ("4 6", "3 8", "2 12"))]
    slow = {"latency": Latency(0.02)}
    with SimulatorProcess(SCRIPT, ["m"], **slow) as one, SimulatorProcess(SCRIPT, ["m"], port=port, **slow) as two:
        model = DirectModel("hosted_vllm/m", api_base=f"{one.url},{two.url}")
        program = BeamSearch(env, FewMoves(), Value(env.value_signature, model, samples=1), width=1)
        back: list[SimulatorProcess] = []

        def kill_and_bring_back():
            while two.stats()["served"] < 20:
                time.sleep(0.01)
            os.kill(two.process.pid, signal.SIGKILL)
            two.process.wait()
            back.append(SimulatorProcess(SCRIPT, ["m"], port=port, **slow).__enter__())

        helper = threading.Thread(target=kill_and_bring_back)
        helper.start()
        try:
            results = asyncio.run(run_tasks(program, tasks, in_flight=8, backoff=0.01))
        finally:
            helper.join()
        try:
            results += asyncio.run(run_tasks(program, tasks[:8], seed=1, in_flight=8, backoff=0.01))
            assert [result.error for result in results] == [None] * (len(tasks) + 8)
            assert back[0].stats()["served"] > 0, "a server that comes back is used again"
        finally:
            for process in back:
                process.__exit__()


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    base = contract.tiny_llama(tmp_path_factory.mktemp("base"))
    adapters = contract.adapters_of(base, tmp_path_factory.mktemp("adapters"))
    with Simulator(model=f"local/{base}") as one, Simulator(model=f"local/{base}") as two:
        model = DirectModel(f"hosted_vllm/{base.name}", api_base=f"{one.url},{two.url}")
        yield contract.Subject(model, base, adapters, contract.LONG_PROMPTS)


@pytest.mark.parametrize("check", [
    contract.base_and_adapters_answer_side_by_side, contract.loading_and_unloading_disturb_nobody,
    contract.a_name_is_not_given_to_other_weights, contract.an_unknown_adapter_does_not_pass_when_sent_again],
    ids=lambda check: check.__name__)
def test_two_servers_keep_the_promises_of_one(check, played, tmp_path):
    contract.run(check, played, tmp_path)


def test_a_cancelled_request_is_not_counted_as_busy():
    async def cancel(model):
        task = asyncio.create_task(model.complete(Request(PROMPT, (0,), max_tokens=9)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with Simulator(say, ["m"], latency=Latency(60.0)) as server:
        model = DirectModel("hosted_vllm/m", api_base=server.url)
        in_one_loop(lambda: cancel(model))
        assert model.pool.servers[0].in_flight == 0


def test_keys_and_passwords_are_not_shown():
    pool = Pool("http://user:p4ssw0rd@127.0.0.1:1/v1?token=t0ken-in-url,http://127.0.0.1:2/v1", "sk-SECRET123456")
    assert pool.endpoint == "http://127.0.0.1:1/v1,http://127.0.0.1:2/v1"
    assert pool.clean("sk-SECRET123456 p4ssw0rd t0ken-in-url\nmore") == "*** *** *** more"
    assert pool.headers(pool.servers[0]) == {} and "SECRET" in pool.headers(pool.servers[1])["Authorization"]
    assert Server("http://user:pw@h/v1").address == "http://h/v1"


def test_a_reply_that_no_context_has_room_for_is_an_error_before_any_work():
    server = Simulator(say, ["m"])

    async def list_models(request):
        return web.json_response({"data": [{"id": "m", "max_model_len": 64}]})

    server.service.list_models = list_models
    with server:
        model = DirectModel("hosted_vllm/m", api_base=server.url)
        model.check(63)
        env = GameOf24()
        with pytest.raises(ModelError, match=r"64 tokens of prompt and reply.*max_tokens=64"):
            BeamSearch(env, LegalMoves(), Value(env.value_signature, model, max_tokens=64)).check()
        assert server.stats()["requests"] == 0
