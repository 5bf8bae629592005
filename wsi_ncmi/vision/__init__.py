"""Image recognition with any loss: image sets, networks, the recipe, one run (``fit_images``)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
