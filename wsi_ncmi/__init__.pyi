from .losses.ncmi import NCMILoss as NCMILoss

__version__: str
