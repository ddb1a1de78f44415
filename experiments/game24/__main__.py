"""`python -m experiments.game24`."""

import sys

from stl_programs.errors import StlError

if __name__ == "__main__":
    try:
        from experiments.game24.experiment import main
    except StlError as error:  # a library that the experiment needs is not installed
        sys.exit(f"error: {error}")
    sys.exit(main())
