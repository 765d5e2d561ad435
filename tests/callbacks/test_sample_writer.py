"""Texts that are what the model would write, and nobody else's business."""

import pytest
import torch

from headless.errors import HeadlessError
from headless.runs.metrics import read_metrics

PROMPTS = '["the king", "", "naïve ☃"]'


def lines(run) -> list[dict]:
    return read_metrics(run.directory.samples)


def test_greedy_text_is_the_likeliest_token_again_and_again(train) -> None:
    """Against a forward pass over the whole text for each token, under the module's own head."""
    run = train("run", "--samples.prompts", PROMPTS, "--samples.temperature", "0")
    written = lines(run)
    assert [s["progress/step"] for s in written] == [4] * 3 + [8] * 3 + [12] * 3
    assert [s["prompt"] for s in written[-3:]] == ["the king", "", "naïve ☃"]
    model, data = run.cli.model.eval(), run.cli.datamodule
    for sample in written[-3:]:
        ids = data.tokenizer.encode(sample["prompt"]) or [data.eos_token_id]
        new: list[int] = []
        for _ in range(3):
            with torch.no_grad():
                new.append(int(model(torch.tensor([ids + new]))[0, -1].argmax()))
            if new[-1] == data.eos_token_id:
                break
        assert sample["text"] == data.tokenizer.decode(new, skip_special_tokens=True)
        assert sample["progress/tokens"] == 12 * 4 * 16


def test_resumed_samples_are_those_of_a_whole_run(train, kill) -> None:
    options = ("--samples.prompts", PROMPTS, "--samples.every_n_steps", "3")
    whole = train("whole", *options)
    kill(7, "parts", *options)
    samples = whole.directory.path.parent / "parts" / "samples.jsonl"
    assert read_metrics(samples)[-1]["progress/step"] == 6  # the checkpoint is of step 5
    with open(samples, "ab") as file:
        file.write('{"progress/step": 7, "text": "☃'.encode()[:-1])
    parts = train("parts", *options, "--run.resume", "true")
    ours, theirs = ([{**s, "progress/seconds": 0} for s in lines(run)] for run in (parts, whole))
    assert ours == theirs


def test_the_same_numbers_each_time(train) -> None:
    """Another seed gives another text; the same one the same."""
    options = ("--samples.max_new_tokens", "12", "--trainer.max_steps", "2")
    same = [train(name, *options) for name in ("a", "b")]
    other = train("c", *options, "--samples.seed", "1")
    texts = [lines(run)[-1]["text"] for run in (*same, other)]
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_that_is_too_long_is_said_at_once(train, tmp_path) -> None:
    """Before the first step, not at the first sample."""
    with pytest.raises(HeadlessError, match="prompt has .* tokens, the model 32 positions"):
        train("run", "--samples.prompts", f'["{"the king " * 40}"]', "--trainer.max_steps", "1")
    points = read_metrics(tmp_path / "runs" / "run" / "metrics.jsonl")
    assert not [p for p in points if "train/loss" in p]
