"""From a folder of slides to feature files: one slide, its pipeline, its execution, the ledger."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
