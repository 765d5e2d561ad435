"""Reported findings are asked of random weights too, and what holds there is not counted."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from headless.analysis.laboratory import analyze, select
from headless.analysis.record import Answer as Claim
from headless.analysis.record import Finding
from headless.analysis.report import write_report
from headless.analysis.session import Session, Subject
from headless.analysis.tables import Tally, in_words, tally
from headless.analysis.twin import ask_twin, beside_twins

V, T = 120, 24
ASKED = ["weights", "cone", "anisotropy", "outliers", "covariance", "norms", "ablation"]


def count(findings: Sequence[Finding]) -> Tally:
    return tally([claim for finding in findings for claim in finding.claims])


def random_model(seed: int) -> Any:
    torch.manual_seed(seed)
    config = GPT2Config(
        n_embd=32,
        n_layer=5,
        n_head=2,
        vocab_size=V,
        n_positions=T,
        bos_token_id=0,
        eos_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def session_on(model: Any) -> Session:
    tokens = np.minimum(np.random.default_rng(0).zipf(1.4, 32 * T), V) - 1
    return Session(Subject("x", model, torch.from_numpy(tokens.reshape(-1, T)), bos=0))


def test_a_random_model_has_nothing_that_random_weights_do_not() -> None:
    """Of twenty and more claims some hold; none of them is due to training, for there was none."""
    session, chosen = session_on(random_model(5)), select(ASKED)
    findings, left_out = analyze(session, chosen)
    assert not left_out
    findings, twin = ask_twin(findings, session, chosen)
    found = count(findings)
    assert found.asked >= 20
    assert found.agrees >= 3
    assert found.alone == 0
    assert found.both == found.agrees
    headline = in_words(found, twin)[0]
    assert headline.startswith("0 reported findings hold in this model and in neither")


def test_what_a_model_has_beyond_random_weights_counts() -> None:
    model = random_model(5)
    with torch.no_grad():
        model.transformer.wte.weight += 0.08  # a common direction: a cone
    session, chosen = session_on(model), select(["cone"])
    findings, twin = ask_twin(analyze(session, chosen)[0], session, chosen)
    cones = {c.text: c for f in findings if f.name == "cone" for c in f.claims}
    cone = cones["the embedding is cone-shaped"]
    assert (cone.agrees, cone.twin) == (True, False)
    assert "90°" in cone.twin_criterion
    assert count(findings).alone >= 1
    # The twin is of the same class and config; the model and the state of chance are as before.
    before = torch.random.get_rng_state()
    ask_twin(findings, session, chosen)
    assert torch.equal(before, torch.random.get_rng_state())


def claims(*given: Claim) -> list[Finding]:
    return [Finding({}, name="a", title="A", claims=given)]


def of(agrees: bool | None, twins: tuple[bool | None, ...] = (), **words: Any) -> Claim:
    return Claim(
        "Somebody 2020", f"claim {agrees} {twins} {words}", agrees, "x", **words, twins=twins
    )


def test_the_count() -> None:
    found = count(
        claims(
            of(True, (False, False)),
            of(True, (False, True)),
            of(True, (True, True)),
            of(True, (None, None)),
            of(False, (True, False)),
            of(False, (False, False)),
            of(None, (True, True)),
            of(True, (False, False), kind="own"),
            of(True, of_text=True),
            of(True, (False, False), contested="x"),
            of(False, (True, True), contested="x"),
        )
    )
    assert (found.claims, found.asked, found.agrees) == (7, 6, 4)
    assert (found.alone, found.both, found.unknown, found.twin_alone) == (1, 2, 1, 1)
    assert found.null == 2
    assert (found.own, found.of_text, found.contested) == (1, 1, 2)


def test_our_own_findings_and_contradictions_are_shown_and_not_counted(tmp_path: Path) -> None:
    """A finding of SmolLM2 agrees with SmolLM2; one of two opposites always holds."""
    findings = claims(
        of(True), of(True, kind="own"), of(False, contested="whether it is"), of(True, of_text=True)
    )
    text = write_report("x", findings, tmp_path).read_text()
    assert "agrees with 1 of the 1 findings of the literature" in text
    assert "1 on which sources contradict each other, 1 that we found ourselves" in text
    assert "not counted: sources disagree whether it is" in text
    assert "not counted: our own finding" in text
    assert json.loads((tmp_path / "analysis.json").read_text())["tally"]["agrees"] == 1


def test_claims_meet_by_source_and_words() -> None:
    model, (other,) = of(True), claims(of(True))
    twin = [replace(other, claims=(replace(model, agrees=False, criterion="y"),))]
    (found,) = beside_twins(claims(model, replace(model, text="another")), [twin])
    assert found.claims[0].twins == (False,)
    assert found.claims[0].twin_criterion == "y"
    assert found.claims[1].twins == ()


@pytest.mark.parametrize("twin", ["", "random weights"])
def test_the_page_says_which(twin: str, tmp_path: Path) -> None:
    answers = ((True, False), (False, False)) if twin else ((), ())
    findings = claims(*(replace(of(True, a), text=f"claim {n}") for n, a in enumerate(answers)))
    text = write_report("x", findings, tmp_path, twin=twin).read_text()
    assert ("random weights were not asked" in text) != bool(twin)
    assert ("1 reported finding holds in this model and in neither" in text) == bool(twin)
    assert text.count("random twins</th>") == bool(twin)
