from .config import GridConfig as GridConfig
from .grid import TileGrid as TileGrid
from .grid import TileSelection as TileSelection
from .grid import select_tiles as select_tiles
from .reader import TileBatch as TileBatch
from .reader import TileReader as TileReader
from .reader import read_tile as read_tile
from .reader import read_tiles as read_tiles
