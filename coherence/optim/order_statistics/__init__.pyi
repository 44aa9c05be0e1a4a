from .clipping import clipped_mean as clipped_mean
from .clipping import trimmed_mean as trimmed_mean
from .coordinates import Formed as Formed
from .coordinates import Products as Products
from .leaves import coordinatewise as coordinatewise
from .ranks import check_percent as check_percent
from .ranks import leaf_rank as leaf_rank
from .ranks import rank as rank
