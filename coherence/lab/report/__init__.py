"""Looking at runs: in the terminal, compared, on one page, as tables and figures.

Never imports JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
