"""Data sets that no other test has read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workers import datasets


@pytest.fixture
def no_data_cached() -> Iterator[None]:
    """Forgets at the end of a test what it has read."""
    yield
    datasets.load.cache_clear()
