"""Loss curves over training: laws of the learning rate's schedule, joint fits and forecasts."""

from sweeps.curves.alone import BENT, POWER
from sweeps.curves.annealing import ANNEALING
from sweeps.curves.law import CurveLaw
from sweeps.curves.multipower import MULTIPOWER

LAWS: dict[str, CurveLaw] = {law.name: law for law in (MULTIPOWER, ANNEALING, POWER, BENT)}
