"""What people look at: a run in the terminal, a comparison, a report on one page, tables, TensorBoard. Never imports JAX."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
