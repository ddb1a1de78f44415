"""One line of the report, and how a program is asked for one."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stl_programs.children import environment_of_child

SECONDS = 3.0
"""How long one server, or one program that is asked for its version, may take."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        said: for people. facts: the same for machines.
        problem: something is wrong, and not merely absent.
    """

    name: str
    said: str
    problem: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def output(*command: str) -> str:
    """What a program prints; nothing where there is none, or it fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True,
                              env=environment_of_child())
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
