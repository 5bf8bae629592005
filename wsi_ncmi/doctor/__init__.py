"""The machine check: what this program needs, what is there, and what to do about the rest."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
