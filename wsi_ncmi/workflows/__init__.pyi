from .config import JobConfig as JobConfig
from .config import load_config as load_config
from .evaluation import evaluate as evaluate
from .extraction import extract as extract
from .result import JobResult as JobResult
from .run import run_demo as run_demo
from .run import run_job as run_job
from .training import train as train
