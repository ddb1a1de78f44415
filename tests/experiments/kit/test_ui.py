"""`make ui` answers within 30 seconds of being typed, on loopback only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_make_ui_answers():
    if not (ROOT / ".venv" / ".installed").exists():
        pytest.skip("not installed by make setup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(["make", "ui", f"PORT={port}"], cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        started = time.time()
        while True:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                break
            except OSError:
                assert time.time() - started < 120, "no answer at all"
                time.sleep(0.5)
        assert "mlflow" in page.lower()
        print(f"answered after {time.time() - started:.1f} s")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
