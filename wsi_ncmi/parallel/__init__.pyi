from .limits import affordable_workers as affordable_workers
from .limits import available_cores as available_cores
from .limits import memory_limit as memory_limit
from .limits import shared_memory as shared_memory
