"""Whole jobs and their configuration; a verb of the command line and its script call the same function."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
