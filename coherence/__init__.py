"""Gradient coherence in JAX: why networks that could memorize generalize instead.

Names load on first use (the list is `__init__.pyi`), so importing the package costs nothing and
never imports JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
