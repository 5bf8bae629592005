from .loading import is_bundle as is_bundle
from .loading import load_bundle as load_bundle
from .loading import load_model as load_model
from .model import ModelBundle as ModelBundle
from .writing import write_bundle as write_bundle
