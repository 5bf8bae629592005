"""What the training slides looked like, so that slides unlike them can be told."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
