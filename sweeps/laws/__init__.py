"""The laws by name. A further one is a file beside these and an entry here, or registered from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType

from sweeps.laws.asymptotes import MEMBERS
from sweeps.laws.base import Law
from sweeps.laws.broken import BROKEN
from sweeps.laws.check import LawError, check
from sweeps.laws.chinchilla import CHINCHILLA
from sweeps.laws.coupled import COUPLED
from sweeps.laws.critical_batch import KAPLAN_BATCH
from sweeps.laws.downstream import DOWNSTREAM
from sweeps.laws.experts import EXPERTS
from sweeps.laws.family_m import FAMILY_M
from sweeps.laws.farseer import FARSEER
from sweeps.laws.kaplan import KAPLAN, KAPLAN_STEPS
from sweeps.laws.modules import MODULES
from sweeps.laws.overtraining import OVERTRAINING
from sweeps.laws.pools import POOLS
from sweeps.laws.power import POWERS
from sweeps.laws.precision import FEW_BITS, FLOATING_POINT
from sweeps.laws.pruning import PRUNED_EXPONENTIAL, PRUNED_POWER
from sweeps.laws.repetition import REPETITIONS
from sweeps.laws.saturation import SATURATION, SATURATION_FLOOR
from sweeps.laws.shape import GEMSTONES, WIDTH_DEPTH
from sweeps.laws.sigmoid import BOUNDED, SIGMOID
from sweeps.laws.streams import STREAMS
from sweeps.laws.vocabulary import VOCABULARY

_ALL: tuple[Law, ...] = (
    *POWERS,
    CHINCHILLA,
    COUPLED,
    KAPLAN,
    KAPLAN_STEPS,
    KAPLAN_BATCH,
    FARSEER,
    OVERTRAINING,
    *REPETITIONS,
    *BROKEN,
    *FAMILY_M,
    *DOWNSTREAM,
    SIGMOID,
    BOUNDED,
    MODULES,
    POOLS,
    MEMBERS,
    PRUNED_POWER,
    PRUNED_EXPONENTIAL,
    STREAMS,
    FLOATING_POINT,
    FEW_BITS,
    WIDTH_DEPTH,
    GEMSTONES,
    VOCABULARY,
    *EXPERTS,
    SATURATION,
    SATURATION_FLOOR,
)
_BY_NAME: dict[str, Law] = {law.name: law for law in _ALL}
LAWS: Mapping[str, Law] = MappingProxyType(_BY_NAME)  # grows with ``register``


def register(law: Law) -> Law:
    """Adds a law, which is then fitted, weighed and asked like any other.

    Raises:
        LawError: it is no law, its name is taken, or it is wrong (see ``sweeps.laws.check``).
    """
    if isinstance(law, Law) and law.name in _BY_NAME:
        if _BY_NAME[law.name] is law:
            return law
        raise LawError(f"there is another law {law.name!r} already; give yours a name of its own")
    _BY_NAME[check(law).name] = law
    return law


def load(entries: Iterable[str]) -> list[Law]:
    """Registers laws from Python modules.

    Args:
        entries: such as ``package.module:NAME``; the modules must be importable.

    Raises:
        LawError: there is no such module or name, or the law cannot be registered.
    """
    found = []
    for entry in entries:
        module, _, name = entry.partition(":")
        if not module or not name:
            raise LawError(f"given the law {entry!r}; allowed: package.module:NAME")
        try:
            law = getattr(import_module(module), name)
        except Exception as error:  # whatever a user's module may raise
            raise LawError(f"cannot load the law {entry!r}: {type(error).__name__}: {error}") from error
        found.append(register(law))
    return found
