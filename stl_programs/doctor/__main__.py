"""What this installation has and reaches, on one page for a bug report; no key or password is ever in it.

    python -m stl_programs.doctor [--server URL] [--store URI] [--json] [--strict]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from stl_programs.doctor import examine, machine_readable, page, problems


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status: 0, or with --strict 1 where there is a problem."""
    parser = argparse.ArgumentParser(prog="python -m stl_programs.doctor", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", default=[], metavar="URL",
                        help="a server to try, without any key; HOSTED_VLLM_API_BASE's are tried anyway")
    parser.add_argument("--store", metavar="URI", help="an MLflow store, like sqlite:///mlflow.db")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where there is a problem")
    chosen = parser.parse_args(argv)
    report = examine(chosen.server, chosen.store)
    print(json.dumps(machine_readable(report), indent=1) if chosen.json else page(report))
    return int(chosen.strict and bool(problems(report)))


if __name__ == "__main__":
    sys.exit(main())
