"""Fixtures of the DICOM tests."""

from __future__ import annotations

import pytest

from gateway.dicom.pixels.children import pool
from tests.support.dicom.in_process import Here


@pytest.fixture
def codecs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs run in the test's own process, so that the test can replace parts of them."""
    monkeypatch.setattr(pool, "shared", Here)
