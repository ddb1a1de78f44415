"""`python -m experiments.hotpotqa`."""

import sys

from stl_programs.errors import StlError

if __name__ == "__main__":
    try:
        from experiments.hotpotqa.experiment import main
    except StlError as error:  # a library that the experiment needs is not installed
        sys.exit(f"error: {error}")
    sys.exit(main())
