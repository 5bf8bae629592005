from .config import StainConfig as StainConfig
from .fitting import fit_stain as fit_stain
from .model import StainFitError as StainFitError
from .model import StainModel as StainModel
from .normaliser import StainNormaliser as StainNormaliser
from .target import StainTarget as StainTarget
from .target import sample_positions as sample_positions
from .target import stain_target as stain_target
