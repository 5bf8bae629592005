"""A slide in the browser: local page, Deep Zoom tiles, overlays; nothing leaves the machine."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
