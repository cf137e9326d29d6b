"""Options of a benchmark that are numbers or text with a default."""

from __future__ import annotations

import argparse


def options(doc: str | None, **defaults: float | str) -> argparse.Namespace:
    """What the command line gives, each as the type of its default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()
