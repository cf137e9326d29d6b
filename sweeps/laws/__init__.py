"""The laws by name. A further one is a file beside these and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sweeps.laws.base import Law
from sweeps.laws.chinchilla import CHINCHILLA
from sweeps.laws.coupled import COUPLED
from sweeps.laws.power import POWER

LAWS: Mapping[str, Law] = MappingProxyType({law.name: law for law in (POWER, CHINCHILLA, COUPLED)})
