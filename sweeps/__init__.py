"""Planning a big training run from many small ones: laws, fits, predictions, the choice of runs."""

from sweeps.study import fit, predict

__all__ = ["fit", "predict"]
