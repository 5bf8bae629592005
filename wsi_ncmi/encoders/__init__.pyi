from .base import Encoder as Encoder
from .base import EncoderInfo as EncoderInfo
from .base import is_out_of_memory as is_out_of_memory
from .config import EncoderConfig as EncoderConfig
from .registry import encoder_folder_name as encoder_folder_name
from .registry import list_encoders as list_encoders
from .registry import load_encoder as load_encoder
