from .losses.config import build_loss as build_loss
from .losses.ncmi import NCMILoss as NCMILoss
from .mil.registry import build_model as build_model
from .prediction.bundle import load_bundle as load_bundle
from .workflows.predict import predict as predict

__version__: str
