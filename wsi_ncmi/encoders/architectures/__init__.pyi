from .build import build_architecture as build_architecture
from .names import to_our_names as to_our_names
from .pooling import TileNetwork as TileNetwork
