"""Labels, patient-safe splits, the leak audit and access to the bags."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
