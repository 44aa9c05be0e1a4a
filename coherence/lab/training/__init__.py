"""The one loop: steps, probes on fixed samples, seeds side by side, checkpoints that resume exactly."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
