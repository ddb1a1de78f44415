"""How griffe reads our docstrings: an `Example:` of `>>>` lines is code, as an `Examples:` section is."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

SINGULAR = re.compile(r"^Example:$", re.M)


class Docstrings(Extension):
    """Names our sections as griffe names them."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = SINGULAR.sub("Examples:", obj.docstring.value)
