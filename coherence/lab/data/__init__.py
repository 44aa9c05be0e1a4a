"""Data sets as numpy arrays: bundled, downloaded, drawn, or the user's own; and label noise."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
