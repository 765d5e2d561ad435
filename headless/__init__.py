"""Headless: pre-train language models with and without a softmax head, and compare them fairly.

Everything is imported when it is first used: `import headless` takes no time.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

HOMES = {
    "prepare": "headless.data.prepare",
    "pretrain": "headless.training.pretrain",
    "validate": "headless.training.validate",
    "tune_head": "headless.training.tune_head",
    "load": "headless.downstream.loading",
    "LanguageModel": "headless.downstream.language_model",
    "generate": "headless.downstream.generate",
    "export": "headless.downstream.export",
    "evaluate": "headless.downstream.evaluate",
    "finetune": "headless.downstream.finetune",
    "neighbors": "headless.downstream.retrieval.neighbors",
    "analyze": "headless.analysis.analyze",
    "compare": "headless.reports.compare",
    "sweep": "headless.sweeps.sweep",
    "Run": "headless.runs.run",
    "HeadlessError": "headless.errors",
}
PACKAGES = ("geometry", "objectives")

__all__ = [*sorted(HOMES), *PACKAGES]


def __getattr__(name: str) -> Any:
    if name in PACKAGES:
        return import_module(f"headless.{name}")
    if name not in HOMES:
        raise AttributeError(f"module 'headless' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
