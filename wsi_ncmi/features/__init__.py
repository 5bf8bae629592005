"""Feature files: their layout, atomic writing, proof, and the extraction of one slide into one of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
