"""A world that reads a variable of the environment."""

from __future__ import annotations

import os

from stl_programs import GameOf24


class Reading(GameOf24):
    """Game of 24 for those who are somewhere."""

    def reset(self, task):
        os.environ["SHOP_PLACE"]
        return super().reset(task)
