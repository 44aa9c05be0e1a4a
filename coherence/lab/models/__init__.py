"""Networks small enough to study, in Flax Linen, without batch norm."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
