"""vLLM in a process of its own, with LoRA adapters that are loaded while it runs.

    python -m stl_programs.models.vllm DIR                # serve a model directory until Ctrl-C; prints what comes next
    python -m stl_programs.models.vllm DIR --port 8000 --python .venv-vllm/bin/python -- --enforce-eager

vLLM needs other versions of our libraries, so it lives in another virtual environment (requirements-vllm.lock): name
its interpreter by `python`, or by the environment variable STL_VLLM_PYTHON.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stl_programs.children import environment_of_child
from stl_programs.construct import Count, Port, Positive, checked
from stl_programs.errors import ModelError, StlError
from stl_programs.models.served.urls import words
from stl_programs.models.vllm.client import ENDING_SECONDS, VllmClient
from stl_programs.models.vllm.process import ServerProcess
from stl_programs.secrets import know_fields, know_options

HOST = "127.0.0.1"
MODULE = ("-m", "vllm.entrypoints.openai.api_server")
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of max_lora_rank that vLLM takes."""
POLL_SECONDS = 0.25
KEEP_ALIVE_SECONDS = "600"
"""How long an idle connection stays open; vLLM's own 5 s end while a client is busy training or searching."""
CPU_OPTIONS = ("--enforce-eager", "--no-enable-chunked-prefill")
"""For a CPU: nothing is gained by compiling; a prompt read in parts ends vLLM 0.32 where its request has a seed."""
CPU_LORAS = 64
"""Places for adapters on a CPU; where all are taken, vLLM 0.32 answers there for the base with the adapter in the last
place when both are in one batch (vllm-project/vllm#48421)."""
REPORT_SECONDS = 5.0
"""Between two lines of progress."""
_log = logging.getLogger(__name__)


class VllmServer(VllmClient):
    """Serve a model directory by vLLM, on loopback, until the block ends.

    Nothing outside the block is set: name the server where a model is named, by `dspy.LM(server.model,
    api_base=server.url)`, or in the environment variable HOSTED_VLLM_API_BASE.

    Whoever reaches the port may load adapters from this disk; it listens on 127.0.0.1 only, and wants
    HOSTED_VLLM_API_KEY (or `api_key`) where there is one. The server gets no other provider's key.

    Args:
        weights: the model directory: config, safetensors, a tokenizer with a chat template.
        name: what the server calls it; the directory's name by default.
        python: interpreter with vLLM; by default STL_VLLM_PYTHON, else this one.
        command: the whole command in front of the options, instead of `python`.
        port: None takes a free one.
        cpu: by default whether the interpreter's PyTorch is a CPU build. vLLM then gets CPU_OPTIONS, and 1 GiB for
            keys and values unless VLLM_CPU_KVCACHE_SPACE says otherwise.
        dtype, max_model_len, max_lora_rank: as vLLM has them.
        max_loras: adapters that share a batch; by default 4, and CPU_LORAS on a CPU, where fewer have to be loaded.
        extra: further options of vLLM, like "--enforce-eager".
        env: further environment variables of the server; of ours it gets those of `environment_of_child`, and no key.
        log: its output; a new file among the temporary ones by default.
        start_seconds: how long it may take to answer.
        progress: called with a line every few seconds of the start; by default they are logged.

    Raises ModelError, with the end of the server's log, when it ends before it answers, or later by itself.

    Example:
        >>> with VllmServer("models/tiny", python=".venv-vllm/bin/python") as server:
        ...     value = Value(signature, dspy.LM(server.model, api_base=server.url))
    """

    @checked
    def __init__(self, weights: str | Path, *, name: str | None = None, python: str | Path | None = None,
                 command: Sequence[str] | None = None, port: Port | None = None, api_key: str | None = None,
                 cpu: bool | None = None, dtype: str = "auto", max_model_len: Count | None = None,
                 max_lora_rank: int = 16, max_loras: Count | None = None,
                 extra: Sequence[str] = (), env: Mapping[str, str] | None = None, log: str | Path | None = None,
                 start_seconds: Positive = 600.0, progress: Callable[[str], None] | None = None):
        self.weights = Path(weights).resolve()
        name = name or self.weights.name
        if not (self.weights / "config.json").is_file():
            raise ModelError(f"{weights} is no model directory: it has no config.json")
        if "@" in name:
            raise ModelError(f"name={name!r}: what follows @ is an adapter's version; choose a name without")
        if max_lora_rank not in RANKS:
            raise ModelError(f"max_lora_rank={max_lora_rank}: vLLM takes {', '.join(map(str, RANKS))}")
        self._command = [*(command or (_interpreter(python), *MODULE))]
        if cpu is None:
            cpu = command is None and _has_cpu_build(self._command[0])
        self.port = _free_port(port or 0)
        super().__init__(f"http://{HOST}:{self.port}/v1", name=name, api_key=api_key,
                         max_lora_rank=max_lora_rank)
        self._command += ["--model", str(self.weights), "--served-model-name", name, "--host", HOST, "--port",
                          str(self.port), "--dtype", dtype, "--generation-config", "vllm", "--enable-prefix-caching",
                          "--enable-prompt-tokens-details", "--enable-lora", "--max-lora-rank", str(max_lora_rank),
                          "--max-loras", str(max_loras or (CPU_LORAS if cpu else 4)), *(CPU_OPTIONS if cpu else ())]
        if max_model_len is not None:
            self._command += ["--max-model-len", str(max_model_len)]
        self._command += extra
        self._env = ({"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")} if cpu else {}) | dict(
            env or {})
        know_fields(self._env)
        know_options(self._command)
        self.log = Path(log) if log else Path(tempfile.mkdtemp(prefix="stl-vllm-")) / "server.log"
        self.start_seconds, self._progress = start_seconds, progress or _log.info
        self._process: ServerProcess | None = None

    @staticmethod
    def attach(url: str, *, name: str | None = None, api_key: str | None = None,
               max_lora_rank: int | None = None) -> VllmClient:
        """A server that somebody else runs; see VllmClient."""
        return VllmClient(url, name=name, api_key=api_key, max_lora_rank=max_lora_rank)

    @property
    def pid(self) -> int | None:
        """The server's process; None where it is not running."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if isinstance(error, StlError):
                self.check(ENDING_SECONDS)
        finally:
            self.stop()

    def start(self) -> None:
        """Start the server and wait until it has answered once; `stop` ends it."""
        if self._process is not None:
            raise ModelError(f"{self.name} runs already, at {self.url}")
        started = time.monotonic()
        self._process = ServerProcess(self._command, self._environment(), self.log)
        try:
            self._await(started)
            self._answer_once()
        except BaseException:
            self.stop()
            raise
        self._progress(f"{self.name}: ready at {self.url} after {time.monotonic() - started:.0f} s")

    def stop(self) -> None:
        """End the server and its children. The log stays."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def wait(self) -> None:
        """Return when `stop` was called from elsewhere. Raises ModelError when the server ends by itself."""
        while self._process is not None:
            self.check(1.0)

    def check(self, seconds: float = 0.0) -> None:
        """Raises ModelError, with the end of its log, when the server has ended by itself, or does within `seconds`."""
        if self._process is not None and (how := self._process.ended(seconds)):
            raise self._failure(f"ended by itself ({how})")

    def _await(self, started: float) -> None:
        assert self._process is not None
        report = started + REPORT_SECONDS
        while not self.health():
            now = time.monotonic()
            if now - started > self.start_seconds:
                raise self._failure(f"did not answer within start_seconds={self.start_seconds:g}")
            if now > report:
                report = now + REPORT_SECONDS
                self._progress(f"{self.name}: starting, {now - started:.0f} s; {self._process.tail(1)[:120]}")
            time.sleep(POLL_SECONDS)

    def _answer_once(self) -> None:
        """The first request compiles; it is sent here, so that no caller waits for that."""
        reply = self._ask("POST", "v1/chat/completions", {
            "model": self.name, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1, "logprobs": True})
        if reply.status != 200:
            raise self._failure(f"answered {reply.status} to its first request "
                                f"({self._pool.clean(words(reply.data))})")

    def _failure(self, what: str) -> ModelError:
        tail = self._process.tail() if self._process else ""
        return ModelError(f"the vLLM server of {self.name} {what}; the end of its log, {self.log}:\n{tail}")

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in environment_of_child().items()
               if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        own |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
                "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": KEEP_ALIVE_SECONDS, "PYTHONSAFEPATH": "1"}
        return own | ({"VLLM_API_KEY": self._api_key} if self._api_key else {}) | self._env

def _interpreter(python: str | Path | None) -> str:
    wanted = str(python or os.environ.get("STL_VLLM_PYTHON") or sys.executable)
    found = shutil.which(wanted)
    if found is None:
        raise ModelError(f"there is no interpreter {wanted}; install vLLM into an environment of its own "
                         "(requirements-vllm.lock) and name its python by STL_VLLM_PYTHON")
    return os.path.abspath(found)


def _has_cpu_build(python: str) -> bool:
    asked = subprocess.run([python, "-I", "-c", "from importlib.metadata import version; print(version('torch'))"],
                           capture_output=True, text=True, check=False, env=environment_of_child())
    return asked.stdout.strip().endswith("+cpu")


def _free_port(wanted: int) -> int:
    """`wanted`, or for 0 a free one. Raises ModelError where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise ModelError(f"port {wanted} of {HOST} cannot be had ({error.strerror}); choose another") from None
        return int(probe.getsockname()[1])


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status: 0 after Ctrl-C, 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m stl_programs.models.vllm", description=__doc__,
                                     usage="%(prog)s DIR [options] [-- OPTIONS OF vLLM]",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", metavar="DIR", help="the model directory")
    parser.add_argument("--name", help="what the server calls it. Default: the directory's name")
    parser.add_argument("--port", type=int, help="default: a free one")
    parser.add_argument("--python", help="interpreter with vLLM. Default: $STL_VLLM_PYTHON, else this one")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-model-len", type=int, metavar="TOKENS", help="default: the model's own")
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--max-loras", type=int, help=f"adapters in one batch. Default: 4; on a CPU {CPU_LORAS}")
    parser.add_argument("--log", metavar="FILE", help="where the server's output goes")
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    options = vars(parser.parse_args(given[:cut])) | {"extra": given[cut + 1:]}
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with VllmServer(**options, progress=lambda line: print(line, file=sys.stderr, flush=True)) as server:
            from stl_programs.models.formats import brought_format

            asked = f" --value-format {form}" if (form := brought_format(server.weights)) else ""
            print(f"{server.url}\n  HOSTED_VLLM_API_BASE={server.url} python -m experiments.game24 --value "
                  f"{server.model} --weights {server.weights}{asked}\nCtrl-C ends the server; its log is {server.log}",
                  flush=True)
            server.wait()
    except StlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
    return 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt

