from .deepzoom import DeepZoom as DeepZoom
from .server import ViewerServer as ViewerServer
from .viewer_data import Shape as Shape
from .viewer_data import ViewerData as ViewerData
