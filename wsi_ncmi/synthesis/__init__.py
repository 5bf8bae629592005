"""Procedural H&E-like slides: the cohort of the demo and the slides of the tests.

Everything here is drawn, nothing is copied from a patient. The files are real tiled, JPEG-compressed
pyramids, so that the demo and the tests go through the same readers as a hospital's slides.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
