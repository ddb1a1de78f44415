"""A server as a child process: its whole process group ends when it is stopped, and when we end, however we end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stl_programs.children import environment_of_child
from stl_programs.secrets import masked

GRACE_SECONDS = 10.0
"""How long a group may take to end by itself before it is killed."""
CHILDREN_SECONDS = 0.5
"""How much longer its children may take, to give back their shared memory."""
TAIL_LINES = 20
TAIL_BYTES = 64 * 1024
LINE_CHARACTERS = 300
_GUARD = """
import os, signal, sys, time
sys.stdin.read()
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.killpg(int(sys.argv[1]), number)
    except ProcessLookupError:
        break
    time.sleep(3)
"""
"""Waits for the end of its standard input, which comes with our end, kill -9 included; then it ends the group."""


class ServerProcess:
    """`command` in a session of its own, its output in `log`.

    A server may have children (vLLM's engine) that outlive it: `stop` ends the group, and so does a small guard
    process when this process is gone without having called it.

    Args:
        env: the whole environment of the server.
        log: written anew; readable by this user only.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path):
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._guard: subprocess.Popen[bytes] | None = None
        with os.fdopen(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
            self._server = subprocess.Popen(list(command), env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            start_new_session=True)
        self.pid = self._server.pid
        try:
            self._guard = subprocess.Popen([sys.executable, "-I", "-S", "-c", _GUARD, str(self.pid)],
                                           stdin=subprocess.PIPE, start_new_session=True, env=environment_of_child())
        except BaseException:
            self.stop()
            raise

    def ended(self, seconds: float = 0.0) -> str | None:
        """How the server ended ("exit status 1", "signal 9"), waiting for that up to `seconds`; None while it runs."""
        try:
            status = self._server.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the log, without secrets."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            text = masked(file.read().decode(errors="replace"))
        shown = ["".join(c for c in line if c.isprintable())[:LINE_CHARACTERS] for line in text.splitlines()]
        return "\n".join([line for line in shown if line.strip()][-lines:])

    def stop(self) -> None:
        """End the server and its children; returns when it is gone. Stopping again does nothing."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
            self.ended(GRACE_SECONDS)
            until = time.monotonic() + CHILDREN_SECONDS
            while time.monotonic() < until:
                os.killpg(self.pid, 0)
                time.sleep(0.02)
            os.killpg(self.pid, signal.SIGKILL)
        self._server.wait()
