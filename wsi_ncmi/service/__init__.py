"""A watched folder as a service: audit trail, metrics, and answers handed on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
