from .losses.ncmi import NCMILoss as NCMILoss
from .prediction.bundle import load_bundle as load_bundle
from .workflows.predict import predict as predict

__version__: str
