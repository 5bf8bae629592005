"""Exact tile grids over slides, the choice of tiles by tissue, and the reading of their pixels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
