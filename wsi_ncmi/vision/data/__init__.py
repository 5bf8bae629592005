"""Image sets: CIFAR as published, arrays, mosaics, image folders and WebDataset shards."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
