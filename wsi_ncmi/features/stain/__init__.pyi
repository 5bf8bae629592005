from .config import StainConfig as StainConfig
from .density import StainFitError as StainFitError
from .methods import StainModel as StainModel
from .methods import StainNormaliser as StainNormaliser
from .target import StainTarget as StainTarget
from .target import fit_stain as fit_stain
from .target import sample_positions as sample_positions
from .target import stain_target as stain_target
