"""Write the page of a tree that a run recorded in its journal.

    python -m stl_programs.viewer JOURNAL.jsonl [--task ID] [--out page.html]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stl_programs.viewer.page import tree_page

UNRECORDED = "run the search with keep_trees=True to record trees"


def results(journal: Path) -> Iterator[dict[str, Any]]:
    """The finished tasks of a journal; a last line that a kill cut short is left out.

    Raises ValueError for any other line that is not JSON.
    """
    with journal.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                if not line.endswith("\n"):
                    return
                raise ValueError(f"{journal}: line {number} is not JSON; is this a run's journal?") from None
            result = row.get("result", row) if isinstance(row, dict) else None
            if isinstance(result, dict) and "task" in result:
                yield result


def recorded_tree(journal: Path, task: str | None = None) -> dict[str, Any]:
    """The tree of `task`, or the first one recorded. Raises ValueError, in one line, when there is none."""
    seen: dict[str, Any] = {}
    for result in results(journal):
        name = str(result["task"])
        if task in (None, name):
            if isinstance(tree := result.get("tree"), dict):
                return {"answer": result.get("answer")} | tree
            seen[name] = result.get("error")
        elif len(seen) < 5:
            seen[name] = None
    if not seen:
        raise ValueError(f"{journal} holds no finished task")
    if task is None:
        raise ValueError(f"{journal} holds no tree: {UNRECORDED}")
    if task not in seen:
        raise ValueError(f"{journal} holds no task {task!r}; it has {', '.join(map(repr, seen))}, for example")
    failed = f", it failed with {seen[task]}" if seen[task] else ""
    raise ValueError(f"{journal} holds no tree of task {task!r}{failed}: {UNRECORDED}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stl_programs.viewer", description="Show a recorded search tree.")
    parser.add_argument("journal", type=Path, help="a run's journal (JSON lines)")
    parser.add_argument("--task", help="the task's id; the first recorded tree by default")
    parser.add_argument("--out", type=Path, default=Path("tree.html"), help="the page to write (%(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        page = tree_page(recorded_tree(chosen.journal, chosen.task))
        chosen.out.write_text(page, encoding="utf-8")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        sys.exit(str(error))
    print(f"{chosen.out}: {len(page):,} characters; open it in a browser")


if __name__ == "__main__":
    main()
