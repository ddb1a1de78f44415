"""How a command of the project ends: one clear line for what went wrong, and how to go on after Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from stl_programs.errors import StlError


def guarded(work: Callable[[], object], run_dir: Path) -> int:
    """Do `work`; the exit status: 0, 1 after an expected error, 130 after Ctrl-C."""
    try:
        work()
    except (StlError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; everything finished is in {run_dir}. The same command goes on from there.", file=sys.stderr)
        return 130
    return 0
