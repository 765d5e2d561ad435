"""`headless generate`, against a loop that looks at every logit."""

import json
from pathlib import Path

import pytest
import torch

from headless.cli.main import main
from headless.downstream.loading import load
from headless.errors import HeadlessError
from headless.training.module import PretrainingModule


def generate(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["generate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["headless", "vanilla", "llama"])
def test_greedy_is_the_likeliest_token_of_the_runs_own_head(
    name: str, runs: dict[str, Path]
) -> None:
    lm = load(runs[name])
    module = PretrainingModule.from_checkpoint(runs[name])
    ids = lm.tokenizer.encode("the king")
    wanted = torch.tensor([ids])
    with torch.no_grad():
        for _ in range(12):  # the whole sequence again each time: no cache
            best = module(wanted)[:, -1].double().argmax(-1, keepdim=True)
            wanted = torch.cat([wanted, best], dim=1)
    text = lm.generate("the king", 12, temperature=0)
    assert text == lm.tokenizer.decode(wanted[0, len(ids) :], skip_special_tokens=True)


def test_it_streams_several_prompts(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "samples.jsonl"
    arguments = ("--model", runs["headless"], "--max_new_tokens", 8, "--output", output)
    out = generate(capsys, *arguments, "--prompt", '["the king", "my lord"]')
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [r["prompt"] for r in records] == ["the king", "my lord"]
    for record in records:
        assert record["prompt"] + record["text"].rstrip() in out
        assert (record["head"], record["model"]) == ("calibrated", "headless")
    assert main(["generate", *map(str, arguments)]) == 2
    assert "--overwrite true" in capsys.readouterr().err


def test_every_one_of_several_prompts_is_continued(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "samples.jsonl"
    prompts = ["the king", "HAMLET: my lord", "12"]
    more = [part for prompt in prompts for part in ("--prompt", prompt)]
    generate(capsys, "--model", runs["vanilla"], "--max_new_tokens", 2, "--output", output, *more)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["prompt"] for record in records] == prompts


def test_the_seed_decides_and_prompts_do_not_disturb_each_other(runs: dict[str, Path]) -> None:
    lm = load(runs["headless"])
    before = torch.get_rng_state()
    first, second = (lm.generate("the king", 20, seed=s) for s in (1, 2))
    assert first != second
    assert lm.generate("the king", 20, seed=1) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_the_head_makes_a_difference(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--model", runs["headless"], "--prompt", "the", "--temperature", 0)
    assert generate(capsys, *arguments) != generate(capsys, *arguments, "--head", "tied")


def test_it_stops_where_the_positions_end(runs: dict[str, Path]) -> None:
    lm = load(runs["vanilla"])
    prompt = "the king loves a crown. " * 2
    room = 32 - len(lm.tokenizer.encode(prompt))
    text = lm.generate(prompt, 500, temperature=0)
    assert 0 < len(lm.tokenizer.encode(text)) <= room + 2
    with pytest.raises(HeadlessError, match="the model 32 positions"):
        lm.generate(prompt * 9, 5)


def test_an_empty_prompt_begins_a_document(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(capsys, "--model", runs["headless"], "--max_new_tokens", 6).strip()


def test_a_masked_model_fills_in(masked_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = generate(capsys, "--model", masked_run, "--prompt", "the king [MASK] my [MASK].")
    lines = out.splitlines()
    assert len(lines) == 3
    shares = [float(guess.rsplit(" ", 1)[1]) for guess in lines[1].strip().split(", ")]
    assert shares == sorted(shares, reverse=True)
    assert main(["generate", "--model", str(masked_run), "--prompt", "no mask"]) == 2
    assert "write [MASK]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "temperature must not be negative"),
        (["--top_p", "0"], "top_p must be in (0, 1]"),
        (["--top_k", "0"], "top_k must be at least 1"),
        (["--max_new_tokens", "0"], "max_new_tokens must be at least 1"),
        (["--head", "calibrated"], "heads are trained and tied"),
        (["--headd", "tied"], "did you mean 'head'"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--model", str(runs["vanilla"]), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
