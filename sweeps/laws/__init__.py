"""The laws by name. A further one is a file beside these and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sweeps.laws.asymptotes import MEMBERS
from sweeps.laws.base import Law
from sweeps.laws.broken import BROKEN
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
LAWS: Mapping[str, Law] = MappingProxyType({law.name: law for law in _ALL})
