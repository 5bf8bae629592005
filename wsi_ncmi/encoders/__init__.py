"""Tile encoders: the weight-free descriptor, published presets, any frozen network, offline."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
