"""Classifiers with scikit-learn's interface: trained by the loop, generative ones, a catalogue."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
