"""The model bundle: everything that new slides need, in one folder or zip, without any code."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
