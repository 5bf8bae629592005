"""Search of settings on the inner validation parts with a stated budget, and training with what it found."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
