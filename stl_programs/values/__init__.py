"""Values: how good a state is (equation 2 of the paper)."""

from typing import TYPE_CHECKING, Any

from stl_programs.exports import found, newcomers
from stl_programs.values.base import Aggregate, BaseValue, Judged, aggregate
from stl_programs.values.bounds import Oracle, Uniform
from stl_programs.values.pairwise import PairwiseValue
from stl_programs.values.per_depth import PerDepth
from stl_programs.values.sampled import Value
from stl_programs.values.siblings import SiblingValue

__all__ = ["Aggregate", "BaseValue", "Judged", "Oracle", "PairwiseValue", "PerDepth", "SiblingValue", "Uniform",
           "Value", "aggregate"]

GROWN = newcomers(__name__)
"""Public classes of files that are not listed above, each with its module."""
__all__ += GROWN


if not TYPE_CHECKING:  # a type checker reads the files themselves
    def __getattr__(name: str) -> Any:
        return found(__name__, GROWN, name)
