"""Checkpoints of other codebases as models of this one, where the architecture is the same."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
