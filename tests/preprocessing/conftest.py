import pytest

from preprocessing import storage


@pytest.fixture(autouse=True)
def _disk_at_leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forced to the disk: a hundred times faster, and no test outlives the machine."""
    monkeypatch.setattr(storage, "synchronize", lambda descriptor: None)
