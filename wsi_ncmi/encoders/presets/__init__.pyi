from .catalogue import PRESETS as PRESETS
from .catalogue import find_preset as find_preset
from .preset import Architecture as Architecture
from .preset import Hub as Hub
from .preset import Preset as Preset
from .preset import Recipe as Recipe
