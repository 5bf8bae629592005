"""NCMI and its rivals behind one interface (:class:`~wsi_ncmi.losses.base.Criterion`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
