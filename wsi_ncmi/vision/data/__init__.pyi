from .opening import open_images as open_images
from .parts import ArrayPart as ArrayPart
from .parts import ImageData as ImageData
from .parts import ImagePart as ImagePart
from .parts import PicturePart as PicturePart
