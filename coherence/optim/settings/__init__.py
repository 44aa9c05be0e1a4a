"""Optimizers as settings: plain values that can be compared and written to JSON, and `build()` to make the transformation.

`per_example` says whether an aggregator needs per-example gradients; one that does not is content
with the batch gradient.
"""

from .followers import SGD, AdaGrad, Adam, L1Decay, L2Decay, RMSProp, SoftThreshold
from .means import Average, NormClip, RollingMean, SignOfSum, SumOfSigns
from .medians import GeometricMedian, Median, MedianOfMeans, RollingMedian, TrimmedMean, Winsorize
from .selections import CoherenceMask, CoordinateMask, SignAgreement, TopK

AnyAggregator = (
    Average
    | Winsorize
    | TrimmedMean
    | Median
    | MedianOfMeans
    | RollingMedian
    | RollingMean
    | GeometricMedian
    | NormClip
    | SignAgreement
    | SumOfSigns
    | SignOfSum
    | CoherenceMask
    | CoordinateMask
    | TopK
)

AnyOptimizer = SGD | Adam | AdaGrad | RMSProp
AnyDecay = L1Decay | L2Decay | SoftThreshold | None

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AnyAggregator",
    "AnyDecay",
    "AnyOptimizer",
    "Average",
    "CoherenceMask",
    "CoordinateMask",
    "GeometricMedian",
    "L1Decay",
    "L2Decay",
    "Median",
    "MedianOfMeans",
    "NormClip",
    "RMSProp",
    "RollingMean",
    "RollingMedian",
    "SignAgreement",
    "SignOfSum",
    "SoftThreshold",
    "SumOfSigns",
    "TopK",
    "TrimmedMean",
    "Winsorize",
]
