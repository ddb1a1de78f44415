"""A working file and its test to start from, in the current folder.

    python -m stl_programs.new environment my_shop [--to DIR]
    python -m stl_programs.new search my_search
    python -m stl_programs.new optimizer my_optimizer
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stl_programs.errors import StlError
from stl_programs.new import KINDS, write


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status: 0, or 1 where nothing was written."""
    parser = argparse.ArgumentParser(prog="python -m stl_programs.new", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("name", metavar="NAME", help="my_shop or MyShop; either gives the other")
    parser.add_argument("--to", type=Path, default=Path(), metavar="DIR", help="the folder; the current one by default")
    chosen = parser.parse_args(argv)
    try:
        file, test = write(chosen.kind, chosen.name, chosen.to)
    except StlError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{file}\n{test}\n\nIt works as it is: python -m pytest {test}\nThen change it, a step at a time.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
