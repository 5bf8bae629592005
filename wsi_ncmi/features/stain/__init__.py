"""Stain normalisation: the colours of a slide brought to those of a target (Macenko, Reinhard)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
