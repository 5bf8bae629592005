"""The report's figures as plain Plotly descriptions; the browser chooses the colours."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
