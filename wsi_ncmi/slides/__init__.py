"""Whole-slide images: one interface, its readers, their resolution and the inventory of a folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
