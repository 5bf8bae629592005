from .pipeline import Pipeline as Pipeline
from .utilisation import Utilisation as Utilisation
