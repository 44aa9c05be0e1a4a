"""One experiment from the command line: all of it, a share of its runs, or several processes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
