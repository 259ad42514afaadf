"""The methods under test."""

from __future__ import annotations

import pytest

from tests.helpers.golden_cases import Methods
from uniprune.registry import METHODS


@pytest.fixture
def methods() -> Methods:
    """Look shipped methods up by name."""
    return METHODS.get
