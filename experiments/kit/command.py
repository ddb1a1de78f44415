"""How a command of the project ends: one clear line for what went wrong, and how to go on after Ctrl-C."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stl_programs.display import clean_lines
from stl_programs.errors import StlError
from stl_programs.secrets import masked


def guarded(work: Callable[[], object], run_dir: Path) -> int:
    """Do `work`; the exit status: 0, 1 after an expected error, 130 after Ctrl-C."""
    try:
        with _no_interrupt_lost():
            work()
    except (StlError, ValueError, OSError) as error:
        print(f"error: {clean_lines(masked(str(error)))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; everything finished is in {run_dir}. The same command goes on from there.", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Python drops a KeyboardInterrupt that falls into a garbage collection's callbacks: it is sent once more."""
    before = sys.unraisablehook

    def hook(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    """The type of a flag that takes a whole number from `least` to `most`."""
    def read(text: str) -> int:
        try:
            value = int(text) if len(text) <= 20 else most + 1
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text[:20]!r}: a whole number from {least:,} to {most:,}")
        return value

    return read


def number(least: float, most: float, *, above: bool = False) -> Callable[[str], float]:
    """The type of a flag that takes a number from `least` (or `above` it) to `most`."""
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least < value if above else least <= value) or not value <= most:
            raise argparse.ArgumentTypeError(
                f"{text[:20]!r}: a number {'above' if above else 'from'} {least:g}, at most {most:g}")
        return value

    return read
