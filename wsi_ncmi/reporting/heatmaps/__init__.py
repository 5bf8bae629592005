"""Heatmaps: attention and evidence of a model as pictures, overlays and tiles."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
