"""The report: one HTML file that opens from disk, and a short Markdown summary."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
