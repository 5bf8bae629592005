"""Parts of ``benchmarks/gpu.py``, each a module that measures cell by cell."""
