"""What one model call promises: typed signatures, their instructions and scales. No control flow, no I/O."""

from signatures.general import (
    NO_ACTION,
    CompareStates,
    EstimateValue,
    JudgeSiblings,
    Lookahead,
    ProposeActions,
)
from signatures.scales import LabelScale, NumberScale, Scale
from signatures.variants import Variant, lookahead_variant, lookahead_variant_of, signature_version

__all__ = ["NO_ACTION", "CompareStates", "EstimateValue", "JudgeSiblings", "LabelScale", "Lookahead", "NumberScale",
           "ProposeActions", "Scale", "Variant", "lookahead_variant", "lookahead_variant_of", "signature_version"]
