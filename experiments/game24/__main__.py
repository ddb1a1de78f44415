"""`python -m experiments.game24`."""

import sys

from experiments.game24.experiment import main

if __name__ == "__main__":
    sys.exit(main())
