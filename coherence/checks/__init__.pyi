from . import promises as promises
from .aggregators import check_aggregator as check_aggregator
from .aggregators import leafwise as leafwise
from .losses import check_loss as check_loss
from .reports import AggregatorCheck as AggregatorCheck
from .reports import Finding as Finding
from .reports import LeafCheck as LeafCheck
from .reports import LossCheck as LossCheck
