"""From a folder of whole-slide images to trustworthy slide-level subtypes.

Tissue tiles are cut at an exact resolution, a frozen encoder embeds them once into an HDF5 cache, and an
attention multiple-instance-learning aggregator trained with the NCMI loss predicts the subtype.
"""

import lazy_loader

from wsi_ncmi.core import extras

__version__ = "0.2.0.dev0"

extras.install()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
