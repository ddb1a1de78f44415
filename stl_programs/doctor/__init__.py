"""What this installation has and reaches, on one page for a bug report; no key or password is ever in it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stl_programs.display import clean
from stl_programs.doctor.finding import Finding
from stl_programs.doctor.hardware import disk, machine
from stl_programs.doctor.installation import extras, keys, versions
from stl_programs.doctor.servers import look_into, reach

__all__ = ["Finding", "examine", "machine_readable", "page", "problems"]


def examine(servers: Sequence[str] = (), store: str | None = None) -> dict[str, list[Finding]]:
    """Every section of the report. Raises nothing: a section that cannot be looked at says so.

    Args:
        servers: base URLs to try, besides those in HOSTED_VLLM_API_BASE.
        store: an MLflow store: a sqlite URI, or a server's URL.

    Example:
        >>> [finding.said for finding in examine()["versions"] if finding.name == "python"]
        ['3.11.7']
    """
    sections: dict[str, Callable[[], Iterable[Finding]]] = {
        "versions": versions, "extras": extras, "keys": keys, "servers": lambda: reach(servers), "machine": machine,
        "disk": disk}
    if store is not None:
        sections["store"] = lambda: [look_into(store)]
    return {title: _safely(look) for title, look in sections.items()}


def _safely(look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except Exception as error:  # its message may hold what was asked with
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {place.name}, line {place.lineno} of {Path(place.filename).name}"
        return [Finding("not examined", where, True)]


def page(report: Mapping[str, Sequence[Finding]]) -> str:
    """The report for people; problems are marked, and counted at the end."""
    width = max(len(finding.name) for findings in report.values() for finding in findings)
    lines = []
    for title, findings in report.items():
        lines += [title, *(f"{'!' if finding.problem else ' '} {finding.name:{width}}  {clean(finding.said)}"
                           for finding in findings), ""]
    count = len(problems(report))
    return "\n".join([*lines, f"{count} {'problem' if count == 1 else 'problems'}{', marked !' if count else ''}"])


def problems(report: Mapping[str, Sequence[Finding]]) -> list[str]:
    """A line for each."""
    return [f"{finding.name}: {clean(finding.said)}" for findings in report.values() for finding in findings
            if finding.problem]


def machine_readable(report: Mapping[str, Sequence[Finding]]) -> dict[str, Any]:
    """The report as JSON: a list per section, and the problems."""
    return {"schema": 1, "problems": problems(report)} | {
        title: [{"name": finding.name, "said": finding.said, "problem": finding.problem, **finding.facts}
                for finding in findings] for title, findings in report.items()}
