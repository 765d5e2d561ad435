"""The display: bars in a terminal, lines in a log, calls for who listens, nothing for others."""

import pytest

from headless import progress
from headless.progress import Display


def test_a_log_gets_the_first_the_last_and_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Display(unit="MB") as display:
        for second in range(25):
            now[0] = 1000.0 + second
            display.report("reading", second * 1_000_000, 24_000_000)
        display.say("done")
    assert capsys.readouterr().err.splitlines() == [
        "reading: 0.0 of 24.0 MB",
        "reading: 10.0 of 24.0 MB",
        "reading: 20.0 of 24.0 MB",
        "reading: 24.0 of 24.0 MB",
        "headless: done",
    ]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Display() as display:
        assert display.live
        display.report("scoring [a]", 3, 7, "nll 2.5")
        display.bars.refresh()
    shown = capsys.readouterr().err
    assert "scoring [a]" in shown
    assert "3 of 7" in shown
    assert "nll 2.5" in shown


def test_a_listener_gets_every_call_and_false_is_silent(capsys) -> None:
    seen: list[tuple[str, int, int]] = []
    for display in (Display(lambda *words: seen.append(words)), Display(False)):
        with display:
            display.report("reading", 1, 2)
            display.say("not printed")
    assert seen == [("reading", 1, 2)]
    assert capsys.readouterr() == ("", "")
