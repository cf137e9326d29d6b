"""A configuration in a few words, for run names and log lines."""

from __future__ import annotations

from sweeps.spec import Config, SweepSpec

SHORT = {
    "width": "w",
    "depth": "d",
    "tokens": "t",
    "resolution": "s",
    "lr": "lr",
    "batch": "b",
    "weight_decay": "wd",
    "seed": "seed",
}


def title(spec: SweepSpec, config: Config) -> str:
    """Shape, tokens and every other axis on which runs of the sweep differ: ``w32 d2 t4e5 lr3e-3``."""
    shown = [name for name in SHORT if name in config and _differs(spec, name)]
    shown += [name for name in sorted(config) if name not in SHORT and _differs(spec, name)]
    return " ".join(f"{SHORT.get(name, name + '=')}{number(config[name])}" for name in shown)


def number(value: float) -> str:
    """Three digits, without the padding of exponents: 4e5, 3e-3, 96, 0.1."""
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 1e4:
        return f"{value:g}" if value == round(value) else f"{value:.3g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _differs(spec: SweepSpec, name: str) -> bool:
    axis = spec.space.get(name)
    return name in ("width", "depth", "tokens") or (axis is not None and len(axis.values) > 1)
