from .importing import ForeignModel as ForeignModel
from .importing import import_checkpoint as import_checkpoint
