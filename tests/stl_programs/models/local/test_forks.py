"""A forked child has a worker and a loop of its own; where it cannot, it is told so. It never waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[4]
PREPARED = """
    import os, sys, threading, time
    import stl_programs
    from stl_programs import GameOf24, GreedySearch, LegalMoves, Value, models
    from stl_programs.engine import run_sync
    from stl_programs.models import Request

    lm = stl_programs.lm("embedded/game24", temperature=0.0, max_tokens=20, cache=False)
    env = GameOf24()
    program = GreedySearch(env, LegalMoves(), Value(env.value_signature, "embedded/game24", samples=1))

    def in_a_child(work):
        if not (child := os.fork()):
            try:
                print("child:", work(), flush=True)
            except BaseException as error:
                print("child:", error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(PREPARED) + textwrap.dedent(code)],
                          capture_output=True, text=True, cwd=ROOT, timeout=60,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_answers_with_a_worker_of_its_own():
    said = run("""
        models.load("embedded/game24").check()
        print(lm("value 4 6"), program(task="4 5 6 10").answer)
        in_a_child(lambda: (models.load("embedded/game24").check(), lm("value 4 6"))[1])
        in_a_child(lambda: program(task="4 5 6 10").answer)
        print(lm("value 4 6"), program(task="4 5 6 10").answer)
    """)
    reply, _, answer = said[0].partition("] ")
    assert said[1:] == [f"child: {reply}]", f"child: {answer}", said[0]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_was_forked_from_work_says_so():
    said = run("""
        model = models.load("embedded/game24")
        ask = lambda: lm("value 1 2 3 4 5 6", n=200, max_tokens=40, temperature=1.0)
        asking = threading.Thread(target=ask)
        asking.start()
        while not model._working:
            time.sleep(0.001)
        in_a_child(lambda: lm("value 4 6"))
        asking.join()
        in_a_child(lambda: len(lm("value 4 6")))
    """)
    assert "embedded/game24 was at work when this process was forked" in said[0] and "'spawn'" in said[0]
    assert said[1] == "child: 1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_no_child_waits_for_a_lock_of_a_thread_that_it_lacks():
    said = run("""
        import itertools
        from stl_programs import secrets
        from stl_programs.models.served import pools

        def learn():
            for number in itertools.count():
                secrets.know(f"planted-{number % 50}")
                with pools._lock:
                    pass

        threading.Thread(target=learn, daemon=True).start()
        for _ in range(30):
            in_a_child(lambda: secrets.know("planted elsewhere"))
    """)
    assert said == ["child: None"] * 30
