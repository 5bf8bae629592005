"""What computes a network: PyTorch (CPU or CUDA, plain or compiled), ONNX Runtime or OpenVINO."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
