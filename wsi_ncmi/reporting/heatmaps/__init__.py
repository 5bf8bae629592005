"""Where on a slide a model looks, and what it sees there: pictures, overlays and tiles."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
