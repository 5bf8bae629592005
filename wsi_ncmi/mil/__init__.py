"""Multiple-instance aggregators behind one interface (:class:`~wsi_ncmi.mil.base.Aggregator`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
