from .fitting import SlideSample as SlideSample
from .fitting import fit_reference as fit_reference
from .flags import Flag as Flag
from .flags import SlideMetadata as SlideMetadata
from .reference import Reference as Reference
