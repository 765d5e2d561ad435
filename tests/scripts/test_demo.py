"""`make demo` on a text of a few pages: every stage, and what is there is reused."""

import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path("scripts").resolve()
WORDS = "the king of england and his sister came to the sea with seven ships before winter".split()


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=12)).capitalize() + ". He was a friend of the king."


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "demo", raising=False)
    import demo

    draw = random.Random(0)
    (tmp_path / "text").mkdir()
    for number in range(40):
        words = "\n\n".join(sentence(draw) for _ in range(60))
        (tmp_path / "text" / f"{number}.txt").write_text(words)
    monkeypatch.setattr(demo.demo_corpus, "main", lambda output: None)
    monkeypatch.setattr(demo, "TEXT", tmp_path / "text")
    monkeypatch.setattr(demo, "DATA", tmp_path / "data")
    monkeypatch.setattr(demo, "EVALUATION", tmp_path / "evaluation")
    monkeypatch.setattr(demo, "RENEW_SECONDS", 0.0)
    return demo


@pytest.mark.usefixtures("blank_figures")
def test_it_goes_from_a_text_to_a_report(
    demo: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    renewed = []
    write = demo.Report.write

    def counted(self, refresh_seconds: int = 0):
        comparison = write(self, refresh_seconds)
        renewed.append((refresh_seconds, len(comparison.groups)))
        return comparison

    monkeypatch.setattr(demo.Report, "write", counted)
    runs = tmp_path / "runs"
    arguments = ["--runs", str(runs), "--steps", "2", "--set", f"data.path={tmp_path / 'data'}"]
    demo.main([*arguments, "--set", "model.backbone.hidden_size=48"])
    assert (runs / "report" / "report.html").is_file()
    assert renewed[0][1] == 1  # after the first validation of the first model
    assert renewed[-1] == (0, 2)
    for objective in demo.OBJECTIVES:
        assert (runs / "exported" / objective / "config.json").is_file()
        assert (runs / objective / "evaluations.jsonl").is_file()
        assert (runs / objective / "analysis" / "analysis.html").is_file()
    assert "continues a prompt" in capsys.readouterr().out
    before = (runs / "vanilla" / "metrics.jsonl").read_bytes()
    demo.main(arguments)
    assert "reusing" in capsys.readouterr().err
    assert (runs / "vanilla" / "metrics.jsonl").read_bytes() == before
