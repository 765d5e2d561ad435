"""What tests of comparisons share."""

import pytest

from headless.reports import inside, sections


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They see numbers that the tables see, and take most of a comparison's time."""
    for name in ("learning_curves", "geometry", "equal_loss", "deciles"):
        monkeypatch.setattr(sections, name, lambda *groups: None)
    monkeypatch.setattr(inside, "FIGURES", {})
