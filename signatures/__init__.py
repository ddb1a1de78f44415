"""What one model call promises: typed signatures, their instructions and scales. No control flow, no I/O."""

from signatures.core import (
    NO_ACTION,
    CompareStates,
    EstimateValue,
    JudgeSiblings,
    Lookahead,
    ProposeActions,
    Variant,
    lookahead_variant,
    lookahead_variant_of,
    signature_version,
)
from signatures.scales import LabelScale, NumberScale, Scale

__all__ = ["NO_ACTION", "CompareStates", "EstimateValue", "JudgeSiblings", "LabelScale", "Lookahead", "NumberScale",
           "ProposeActions", "Scale", "Variant", "lookahead_variant", "lookahead_variant_of", "signature_version"]
