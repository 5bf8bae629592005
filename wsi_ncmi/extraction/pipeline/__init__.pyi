from .pipeline import Pipeline as Pipeline
from .pipeline import PipelineConfig as PipelineConfig
from .utilisation import Utilisation as Utilisation
