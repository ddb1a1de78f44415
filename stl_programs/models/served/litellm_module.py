"""LiteLLM, imported when it is first needed: the import takes seconds."""

from __future__ import annotations

import os
from typing import Any


def the_litellm() -> Any:
    """The module litellm, with the prices that ship with it: nothing is fetched at import."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    return litellm
