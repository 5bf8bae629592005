"""Extraction: slides to feature files, with pipeline, worker processes, claims and ledger."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
