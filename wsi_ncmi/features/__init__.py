"""Feature files: layout, atomic writing, reading, verification, stain normalisation, other tools' formats."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
