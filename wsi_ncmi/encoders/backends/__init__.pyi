from .base import Backend as Backend
from .base import Result as Result
from .choice import build_backend as build_backend
from .memory import find_batch_size as find_batch_size
from .memory import is_out_of_memory as is_out_of_memory
