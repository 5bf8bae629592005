from .deepzoom import DeepZoom as DeepZoom
from .server import Pages as Pages
from .server import ViewerServer as ViewerServer
from .slide_pages import SlidePages as SlidePages
from .viewer_data import Shape as Shape
from .viewer_data import ViewerData as ViewerData
