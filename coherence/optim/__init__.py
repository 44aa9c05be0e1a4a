"""Optimizers that listen to many examples: aggregators, background forces, early stopping, all native to optax."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
