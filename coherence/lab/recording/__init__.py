"""Records of a loop of your own: on disk as a run, and copied to other programs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
