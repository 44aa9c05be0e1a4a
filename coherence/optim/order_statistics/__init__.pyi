from .coordinates import Coordinates as Coordinates
from .coordinates import Formed as Formed
from .coordinates import Products as Products
from .leaves import coordinatewise as coordinatewise
from .means import clipped_mean as clipped_mean
from .means import leaf_rank as leaf_rank
from .means import rank as rank
from .means import trimmed_mean as trimmed_mean
