"""Pipeline of one process: slides in, feature files out, the encoder always busy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
