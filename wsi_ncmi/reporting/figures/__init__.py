"""The report's figures as descriptions; the page's script draws them in its colours."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
