from .content import Shape as Shape
from .content import ViewerContent as ViewerContent
from .deepzoom import DeepZoom as DeepZoom
from .server import ViewerServer as ViewerServer
