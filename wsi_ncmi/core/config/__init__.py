"""Configuration: one validated class a stage, read from YAML, flags and ``--set``; a fault is one sentence.

A stage declares each of its settings once, as a field of its config class. The YAML key, the flag and the
Python argument are that field, and its help text is the field's entry in the class's docstring.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
