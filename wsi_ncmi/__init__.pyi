from . import metrics as metrics
from .core.errors import InputError as InputError
from .encoders.registry import load_encoder as load_encoder
from .extraction.embedding import embed_slide as embed_slide
from .losses.config import build_loss as build_loss
from .losses.ncmi import NCMILoss as NCMILoss
from .mil.registry import build_model as build_model
from .prediction.bundle import load_bundle as load_bundle
from .slides.opening import open_slide as open_slide
from .training.dataset import FeatureDataset as FeatureDataset
from .training.dataset import collate as collate
from .workflows.evaluation import evaluate as evaluate
from .workflows.export import export as export
from .workflows.extraction import extract as extract
from .workflows.predict import predict as predict
from .workflows.training import compare as compare
from .workflows.training import train as train

__version__: str
