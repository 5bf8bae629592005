from .config import ImageJobConfig as ImageJobConfig
from .job import load_image_config as load_image_config
from .job import run_images as run_images
from .summary import text_table as text_table
