"""Values: how good a state is (equation 2 of the paper)."""

from stl_programs.values.base import Aggregate, BaseValue, Judged, aggregate
from stl_programs.values.bounds import Oracle, Uniform
from stl_programs.values.pairwise import PairwiseValue
from stl_programs.values.per_depth import PerDepth
from stl_programs.values.sampled import Value
from stl_programs.values.siblings import SiblingValue

__all__ = ["Aggregate", "BaseValue", "Judged", "Oracle", "PairwiseValue", "PerDepth", "SiblingValue", "Uniform",
           "Value", "aggregate"]
