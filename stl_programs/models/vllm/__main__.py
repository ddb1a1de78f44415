"""`python -m stl_programs.models.vllm DIR`: serve a model directory until Ctrl-C."""

import sys

from stl_programs.models.vllm.server import main

if __name__ == "__main__":
    sys.exit(main())
