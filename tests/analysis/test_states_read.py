"""An analysis that reads less than all states finds the same where no more is measured."""

from typing import Any

import pytest
import torch
from heads import independent, model_of, session

from headless.analysis import analyze as command
from headless.analysis.head.lens import statistics_of
from headless.analysis.laboratory import ANALYSES, findings_of, reads_last_alone
from headless.analysis.session import Session
from headless.errors import HeadlessError

NAMES = sorted({one.option for one in ANALYSES})
SPARING = [name for name in NAMES if reads_last_alone([name])]


def lab(last_alone: bool, preset: Any = "full") -> Session:
    ids_NT = independent()
    model = model_of("gpt2")
    return session(
        model, ids_NT, tokens=ids_NT.flatten().numpy(), last_alone=last_alone, preset=preset
    )


def test_which_they_are() -> None:
    assert {"frequency", "bottleneck", "cone", "corpus", "copying"} <= set(SPARING)
    assert not {"unigram", "norms", "positions", "ablation"} & set(SPARING)
    assert reads_last_alone(["frequency", "bottleneck"])
    assert not reads_last_alone(["frequency", "norms"])


@pytest.mark.parametrize("name", SPARING)
def test_it_finds_the_same(name: str) -> None:
    numbers = []
    for last_alone in (False, True):
        one = lab(last_alone)
        torch.manual_seed(0)
        try:
            findings = findings_of(name, one)
        except HeadlessError as error:
            numbers.append(str(error))
            continue
        numbers.append(repr([finding.scalars for finding in findings]))
        states = {one.states for one in ANALYSES if one.option == name}
        if states == {"none"}:
            assert one._statistics is None
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("preset", ["cheap", "full"])
def test_no_more_is_measured(preset: Any) -> None:
    one, every = lab(True, preset), lab(False, preset)
    assert [point.component for point in one.statistics] == ["norm_f"]
    assert len(every.statistics) > 3
    assert [point.component for point in statistics_of(one)] == ["norm_f"]
    assert torch.equal(one.last_states, every.last_states)


def test_the_command_asks_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def run(one: Session, names: Any) -> Any:
        asked.append(one.last_alone)
        raise HeadlessError("enough")

    monkeypatch.setattr("headless.analysis.analyze.run_analyses", run)
    monkeypatch.setattr(
        "headless.analysis.analyze.open_subject", lambda *_: lab(False).subject, raising=True
    )
    for names in (["frequency", "bottleneck"], ["frequency", "norms"], None):
        with pytest.raises(HeadlessError, match="enough"):
            command.analyze("x", analyses=names, random_twin=False)
    assert asked == [True, False, False]
