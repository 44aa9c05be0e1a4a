"""What users run on their own models and methods before they trust a number.

`check_loss`, `check_aggregator`, properties.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
