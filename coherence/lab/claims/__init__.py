"""Claims of sources, fixed before the run, and verdicts on them from what runs recorded.

Numpy and scipy are imported where used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
