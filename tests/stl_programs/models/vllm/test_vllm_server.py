"""Starting, watching and ending a server, with a small script in vLLM's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stl_programs.errors import AdapterError, ModelError, StlError
from stl_programs.models.artifacts import weights_hash
from stl_programs.models.vllm import VllmServer
from stl_programs.models.vllm.client import parse_metrics
from stl_programs.models.vllm.server import main

FAKE = """
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

options = dict(zip(sys.argv, sys.argv[1:]))
how = os.environ.get("HOW", "")
print("key", os.environ.get("VLLM_API_KEY"), os.environ.get("OPENAI_API_KEY"), flush=True)
if how == "dies":
    print("\\n".join(f"line {i}" for i in range(40)), flush=True)
    sys.exit(3)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                                                "time.sleep(60)"])
print("child", child.pid, flush=True)
if how == "hangs":
    time.sleep(60)
loaded = {}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, "")
        elif self.path == "/metrics":
            self.answer(200, 'vllm:num_requests_running{engine="0"} 2.0\\nvllm:num_requests_running{engine="1"} 1.0\\n')
        else:
            rows = [{"id": options["--served-model-name"], "root": options["--model"], "parent": None}]
            rows += [{"id": n, "root": p, "parent": rows[0]["id"]} for n, p in loaded.items()]
            self.answer(200, json.dumps({"data": rows}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            loaded[body["lora_name"]] = body["lora_path"]
        elif self.path == "/v1/unload_lora_adapter" and loaded.pop(body["lora_name"], None) is None:
            return self.answer(404, json.dumps({"error": {"message": "cannot be found"}}))
        elif "die" in str(body):
            print("dying", flush=True)
            os._exit(9)
        elif how == "refuses":
            return self.answer(400, json.dumps({"error": {"message": "no chat template"}}))
        self.answer(200, "{}")

    def log_message(self, *_):
        pass

ThreadingHTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The script, a base directory and two adapters of it."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "server.py").write_text(FAKE)
    base = folder / "tiny"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    for name, rank in (("one", 8), ("two", 8), ("large", 64)):
        adapter(folder / name, base, name.encode(), rank)
    return folder


def adapter(folder: Path, base: Path, weights: bytes, rank: int = 8) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "provenance.json").write_text(json.dumps({"base_sha256": weights_hash(base)}))
    return folder


def server(files: Path, tmp_path: Path, how: str = "", **options) -> VllmServer:
    return VllmServer(files / "tiny", command=[sys.executable, str(files / "server.py")], env={"HOW": how},
                      log=tmp_path / "server.log", **options)


@pytest.fixture(scope="module")
def running(files, tmp_path_factory):
    with server(files, tmp_path_factory.mktemp("running")) as started:
        yield started


def child_of(log: Path) -> int:
    return int(next(line.split()[1] for line in log.read_text().splitlines() if line.startswith("child")))


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether the process ends within `seconds`; one that waits for its parent to notice has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_a_block_starts_and_ends_the_server_and_its_children(files, tmp_path):
    lines: list[str] = []
    with server(files, tmp_path, progress=lines.append) as started:
        assert started.url == f"http://127.0.0.1:{started.port}/v1" and started.model == "hosted_vllm/tiny"
        assert started.health()
        pid, child = started.pid, child_of(tmp_path / "server.log")
    assert gone(pid) and gone(child) and "ready at" in lines[-1]
    assert started.pid is None and not started.health()


def test_an_exception_in_the_block_ends_it_too(files, tmp_path):
    with pytest.raises(ZeroDivisionError), server(files, tmp_path) as started:
        pid, child = started.pid, child_of(tmp_path / "server.log")
        raise ZeroDivisionError
    assert gone(pid) and gone(child)


@pytest.mark.slow
def test_nothing_survives_a_kill_of_this_process(files, tmp_path):
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parents[4])!r})\n"
            "from stl_programs.models.vllm import VllmServer\n"
            f"s = VllmServer({str(files / 'tiny')!r}, command=[sys.executable, {str(files / 'server.py')!r}], "
            f"log={str(tmp_path / 'server.log')!r})\ns.start()\nprint(s.pid, flush=True)\nsys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        child = child_of(tmp_path / "server.log")
        assert not gone(pid, 0.1) and not gone(child, 0.1)
        parent.kill()
    assert gone(pid) and gone(child)


def test_a_server_that_dies_at_its_start_says_why(files, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-provider")
    with pytest.raises(ModelError, match=r"exit status 3") as raised:
        server(files, tmp_path, "dies", api_key="sk-of-this-server").start()
    assert "line 39" in str(raised.value) and "line 20" in str(raised.value) and "line 19" not in str(raised.value)
    assert "sk-of-another-provider" not in (tmp_path / "server.log").read_text()


def test_the_end_of_the_log_is_shown_without_keys(files, tmp_path):
    hanging = server(files, tmp_path, "hangs", api_key="sk-of-this-server", start_seconds=0.6)
    with pytest.raises(ModelError, match=r"start_seconds=0\.6") as raised:
        hanging.start()
    assert "key *** None" in str(raised.value) and "sk-of-this" not in str(raised.value)
    assert gone(child_of(tmp_path / "server.log")) and (tmp_path / "server.log").stat().st_mode & 0o077 == 0


def test_a_server_that_refuses_its_first_request_is_ended(files, tmp_path):
    with pytest.raises(ModelError, match=r"answered 400 to its first request \(no chat template"):
        server(files, tmp_path, "refuses").start()
    assert gone(child_of(tmp_path / "server.log"))


def test_a_server_that_dies_later_says_so(files, tmp_path):
    with pytest.raises(ModelError, match="exit status 9") as raised, server(files, tmp_path) as started:
        child = child_of(tmp_path / "server.log")
        with pytest.raises(ModelError, match="exit status 9"):
            started.load_adapter("die", adapter(tmp_path / "die", files / "tiny", b"x"))
            started._ask("POST", "v1/chat/completions", {"say": "die"})
        raise StlError("all 3 rollouts failed")
    assert "dying" in str(raised.value) and isinstance(raised.value.__context__, StlError) and gone(child)


def test_adapters_come_and_go(files, running):
    running.load_adapter("tiny@a", files / "one")
    running.load_adapter("hosted_vllm/tiny@b", files / "two")
    running.load_adapter("tiny@a", files / "one")
    assert running.adapters() == {"tiny@a": files / "one", "tiny@b": files / "two"}
    assert VllmServer.attach(running.url.removesuffix("/v1")).model == "hosted_vllm/tiny"
    running.unload_adapter("tiny@a")
    with pytest.raises(AdapterError, match="serves no adapter tiny@a"):
        running.unload_adapter("tiny@a")
    assert list(running.adapters()) == ["tiny@b"]


def test_weights_never_change_under_a_name_or_in_a_directory(files, running, tmp_path):
    folder = adapter(tmp_path / "mine", files / "tiny", b"first")
    running.load_adapter("tiny@v1", folder)
    with pytest.raises(AdapterError, match="give new weights a new version"):
        running.load_adapter("tiny@v1", files / "two")
    running.unload_adapter("tiny@v1")
    (folder / "adapter_model.safetensors").write_bytes(b"second")
    for name in ("tiny@v1", "tiny@v2"):
        with pytest.raises(AdapterError, match="other weights"):
            running.load_adapter(name, folder)
    with pytest.raises(AdapterError, match="already served"):
        running.load_adapter("tiny@foreign", files / "one")
        VllmServer.attach(running.url).load_adapter("tiny@foreign", files / "one")


def test_what_does_not_fit_is_not_sent(files, running, tmp_path):
    with pytest.raises(AdapterError, match="rank 64; the server takes at most 16"):
        running.load_adapter("tiny@large", files / "large")
    with pytest.raises(AdapterError):
        running.load_adapter("tiny@none", tmp_path / "nowhere")
    other = adapter(tmp_path / "other", files / "tiny", b"x")
    (other / "provenance.json").write_text(json.dumps({"base_sha256": "f" * 64}))
    with pytest.raises(AdapterError, match="trained on base ffffffffffff"):
        running.load_adapter("tiny@other", other)
    (other / "adapter_config.json").write_text("{}")
    with pytest.raises(AdapterError, match="names no rank"):
        running.load_adapter("tiny@other", other)


def test_metrics_are_summed_over_engines(running):
    assert running.metrics() == {"running": 3.0}
    text = """# HELP vllm:prompt_tokens_total Number
vllm:prompt_tokens_total{engine="0",model_name="a b"} 7.0
vllm:prompt_tokens_total{engine="1",model_name="a b"} 1e+01
vllm:prompt_tokens_created{engine="0"} 1.79e+09
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
process_start_time_seconds 5.5"""
    assert parse_metrics(text.splitlines()) == {"prompt_tokens": 17.0, "kv_cache_usage": 0.5, "started": 5.5}


@pytest.mark.parametrize(("options", "why"), [
    ({"name": "a@b"}, "an adapter's version"), ({"max_lora_rank": 20}, "max_lora_rank=20"),
    ({"python": "no/such/python", "command": None}, "no interpreter no/such/python")])
def test_what_cannot_be_started_is_said_at_once(files, options, why):
    with pytest.raises(ModelError, match=why):
        VllmServer(files / "tiny", **{"command": ["x"], **options})


def test_a_port_that_is_taken_is_refused(files, running, tmp_path):
    with pytest.raises(ModelError, match=f"port {running.port}"):
        server(files, tmp_path, port=running.port)
    with pytest.raises(ModelError, match=r"no config\.json"):
        VllmServer(tmp_path, command=["x"])


def test_the_command_serves_until_ctrl_c(files, tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(f"#!/bin/sh\n[ $1 = -m ] || exec {sys.executable} \"$@\"\nshift 2\n"
                       f"exec {sys.executable} {files / 'server.py'} \"$@\"\n")
    wrapper.chmod(0o755)
    with subprocess.Popen([sys.executable, "-m", "stl_programs.models.vllm", str(files / "tiny"), "--python",
                           str(wrapper), "--log", str(tmp_path / "log"), "--", "--enforce-eager"],
                          cwd=Path(__file__).parents[4], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as command:
        url = command.stdout.readline().strip()
        assert VllmServer.attach(url).health() and f"HOSTED_VLLM_API_BASE={url}" in command.stdout.readline()
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=60)
    assert command.returncode == 0 and "ended" in err and "Traceback" not in err
    assert gone(child_of(tmp_path / "log")) and not VllmServer.attach(url).health()


def test_the_command_reports_errors_in_its_exit_status(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no config.json" in capsys.readouterr().err
