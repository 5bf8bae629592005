from .config import StainConfig as StainConfig
from .model import StainFitError as StainFitError
from .model import StainModel as StainModel
from .model import StainNormaliser as StainNormaliser
from .target import StainTarget as StainTarget
from .target import fit_stain as fit_stain
from .target import sample_positions as sample_positions
from .target import stain_target as stain_target
