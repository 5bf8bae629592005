from .config import Load as Load
from .config import PipelineConfig as PipelineConfig
from .engine import Engine as Engine
