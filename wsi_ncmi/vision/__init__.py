"""Image recognition with any loss: image sets, networks, the recipe, one run, losses × seeds as a job."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
