"""Predictions as DICOM objects beside the slide's own: annotations, structured report, parametric map."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
