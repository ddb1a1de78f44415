"""What a process that we start is told of the environment: what it needs to run, and no secret."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from stl_programs.credentials import is_secret_name
from stl_programs.secrets import masked

PASSED = re.compile(
    "PATH|HOME|USER|LOGNAME|SHELL|TERM|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|PYTHON.*|VIRTUAL_ENV|"
    "(DY)?LD_LIBRARY_PATH|(CUDA|NVIDIA|NCCL|HIP|ROCR|ROCM|OMP|MKL|OPENBLAS|KMP|TORCH|TRITON|VLLM|TRANSFORMERS|XDG|STL)_.*|"
    "HF_HOME|HF_HUB_OFFLINE|HF_HUB_CACHE|HF_DATASETS_OFFLINE|SSL_CERT_FILE|SSL_CERT_DIR|TOKENIZERS_PARALLELISM")
"""The names of variables that children get."""


def environment_of_child(*added: Mapping[str, str]) -> dict[str, str]:
    """The variables that a child gets: of ours those that are named in PASSED and hold no secret, and what is added.

    Example:
        >>> "OPENAI_API_KEY" in environment_of_child()
        False
    """
    ours = {name: value for name, value in os.environ.items()
            if PASSED.fullmatch(name) and not is_secret_name(name) and masked(value) == value}
    return {name: value for some in (ours, *added) for name, value in some.items()}
