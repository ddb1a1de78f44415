"""The doctor names what is wrong, shows no secret, and never falls ill itself."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stl_programs import doctor
from stl_programs.doctor import __main__ as command
from stl_programs.doctor import hardware, installation, servers
from stl_programs.testing.simulator import Simulator

ROOT = Path(__file__).parents[3]
SECRETS = {"OPENAI_API_KEY": "sk-planted-openai-0123456789", "OUR_OWN_API_KEY": "planted-own-0123456789",
           "HOSTED_VLLM_API_KEY": "planted-vllm-0123456789"}
IN_URLS = ("planteduser", "plantedpassword", "plantedquery")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_API_BASE"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def serve():
    """Starts a server that answers with what a function of the request's headers and path says: status and body."""
    running = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, body = answer(self.headers, self.path)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"127.0.0.1:{server.server_port}/v1"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def dead():
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}/v1"


def only(findings):
    [finding] = findings
    return finding


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["page", "json"])
def test_no_secret_is_printed(serve, flags):
    def echo(headers, path):
        return 200, json.dumps({"data": [{"id": f"{headers['Authorization']} {path}"}]})

    alive, gone = serve(echo), dead()
    userinfo, query = "planteduser:plantedpassword@", "?token=plantedquery"
    done = subprocess.run(
        [sys.executable, "-m", "stl_programs.doctor", *flags, "--server", f"http://{userinfo}{gone}{query}",
         "--server", f"{userinfo}nonsense{query}", "--store", f"postgresql://{userinfo}host/db{query}"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, **SECRETS, "HOSTED_VLLM_API_BASE": f"http://{userinfo}{alive}{query}"})
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    for secret in (*SECRETS.values(), *IN_URLS):
        assert secret not in shown, secret
    for told in (*SECRETS, f"http://{alive}", f"http://{gone}", "***"):
        assert told in shown, told
    if flags:
        report = json.loads(done.stdout)
        assert {row["name"]: row["set"] for row in report["keys"]} == dict.fromkeys(SECRETS, True) | {
            "ANTHROPIC_API_KEY": False, "GEMINI_API_KEY": False}
        assert [row["state"] for row in report["servers"]] == ["ok", "not reached", "not a URL"]
        assert len(report["problems"]) == sum(row["problem"] for name, rows in report.items()
                                              if name not in ("schema", "problems") for row in rows)


def test_a_dead_server_is_a_problem_and_strict_says_so(capsys):
    url = f"http://{dead()}"
    assert command.main(["--server", url]) == 0
    assert f"! {url}" in capsys.readouterr().out
    assert command.main(["--server", url, "--strict"]) == 1
    assert "not reached (ClientConnectorError)" in capsys.readouterr().out


def test_a_running_server_is_no_problem():
    with Simulator(lambda messages, model, seed: "", ["game24"]) as server:
        found = only(servers.reach([server.url]))
    assert found.said.startswith("serves game24, ") and not found.problem
    assert found.facts["state"] == "ok" and found.facts["ms"] > 0


def test_a_server_that_hangs_is_left(monkeypatch):
    monkeypatch.setattr(servers, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = only(servers.reach([f"http://127.0.0.1:{silent.getsockname()[1]}/v1"]))
    assert found.problem and found.facts["state"] == "no answer"


@pytest.mark.parametrize("status, key, said, problem", [
    (401, None, "wants a key; none was sent (401)", False), (403, "k", "wants another key (403)", True),
    (404, None, "answered 404; does the URL lack /v1?", True), (500, None, "answered 500", True),
    (200, None, "answers", False)])
def test_what_a_server_answers(serve, status, key, said, problem):
    found = servers.probe(f"http://{serve(lambda headers, path: (status, 'no JSON'))}", key)
    assert found.said.startswith(said) and found.problem is problem and found.facts["status"] == status


def test_the_key_goes_to_its_own_servers_only(serve, monkeypatch):
    seen = {}

    def remember(headers, path):
        seen[headers["Host"]] = headers["Authorization"]
        return 200, '{"data": []}'

    own, other = serve(remember), serve(remember)
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "planted")
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"http://{own}")
    assert len(servers.reach([f"http://{other}"])) == 2
    assert seen == {own.partition("/")[0]: "Bearer planted", other.partition("/")[0]: None}


def test_libraries_say_which_extra_has_them():
    absent = installation._library(Requirement("no-such-thing>=1"), "benchmarks")
    assert absent.said == "not installed; the extra 'benchmarks' has it" and not absent.problem
    assert installation._library(Requirement("no-such-thing>=1"), "").problem
    old = installation._library(Requirement("pytest<1"), "dev")
    assert old.problem and old.said.endswith("; wanted is <1")


def test_versions_and_extras_of_this_installation():
    found = {finding.name: finding for finding in installation.versions()}
    assert {"python", "platform", "stl-programs", "dspy", "torch", "mlflow", "vllm"} <= set(found)
    assert not found["dspy"].problem and found["dspy"].facts["extra"] is None
    assert {finding.name for finding in installation.extras()} >= {"dev", "benchmarks"}


def program(path, says):
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


def test_vllm_is_looked_for_in_its_own_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("STL_VLLM_PYTHON", str(program(tmp_path / "python", "echo 0.32.0")))
    assert installation._vllm().said == "0.32.0 (at STL_VLLM_PYTHON)"
    monkeypatch.setenv("STL_VLLM_PYTHON", str(tmp_path / "nothing"))
    assert installation._vllm().said.startswith("not installed at STL_VLLM_PYTHON")


def test_a_gpu_that_pytorch_cannot_see_is_a_problem(tmp_path, monkeypatch):
    program(tmp_path / "nvidia-smi", 'echo "NVIDIA H100, 81559 MiB, 580.1"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for version, problem in (("2.13.0+cpu", True), ("2.13.0", False)):
        monkeypatch.setattr(hardware, "version_of", lambda name, version=version: version)
        gpu = next(finding for finding in hardware.machine() if finding.name == "GPU")
        assert gpu.said.startswith("NVIDIA H100, 81559 MiB") and gpu.problem is problem


def test_memory_and_disk_are_numbers(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  2097152 kB\nMemFree: 1 kB\nMemAvailable: 1048576 kB\n")
    assert hardware._memory(tmp_path / "meminfo").said == "2.0 GiB, 1.0 GiB available"
    assert hardware._memory(tmp_path / "absent").said.startswith("unknown: ")
    assert all(finding.facts["free_bytes"] > 0 for finding in hardware.disk())


def test_a_store_is_read_and_never_made(tmp_path, serve):
    path = tmp_path / "mlflow.db"
    uri = f"sqlite:///{path}"
    assert servers.look_into(uri).facts["state"] == "absent" and not path.exists()
    with sqlite3.connect(path) as database:
        database.execute("create table runs (id)")
        database.execute("insert into runs values (1), (2)")
    database.close()
    assert servers.look_into(uri).said.startswith(f"{path}: 2 runs, ")
    path.write_text("no database")
    assert servers.look_into(uri).problem
    assert servers.look_into(f"http://{serve(lambda headers, path: (200, 'OK'))}").said.startswith("answers, ")


def test_it_never_raises(monkeypatch):
    def ill():
        raise RuntimeError("planted-secret")

    monkeypatch.setattr(doctor, "machine", ill)
    report = doctor.examine()
    assert only(report["machine"]).problem and "RuntimeError in ill" in only(report["machine"]).said
    assert "planted-secret" not in doctor.page(report) and len(report["disk"]) == 2
