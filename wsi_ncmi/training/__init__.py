"""Fitting MIL models to labelled bags: one run (``fit``), or folds × seeds × losses (``run_experiment``)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
