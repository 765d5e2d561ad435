from headless import geometry as geometry
from headless import objectives as objectives
from headless.analysis.analyze import analyze as analyze
from headless.data.prepare import prepare as prepare
from headless.downstream.evaluate import evaluate as evaluate
from headless.downstream.export import export as export
from headless.downstream.finetune import finetune as finetune
from headless.downstream.generate import generate as generate
from headless.downstream.language_model import LanguageModel as LanguageModel
from headless.downstream.loading import load as load
from headless.downstream.retrieval.neighbors import neighbors as neighbors
from headless.errors import HeadlessError as HeadlessError
from headless.reports.compare import compare as compare
from headless.runs.run import Run as Run
from headless.sweeps.sweep import sweep as sweep
from headless.training.pretrain import pretrain as pretrain
from headless.training.tune_head import tune_head as tune_head
from headless.training.validate import validate as validate

__version__: str
HOMES: dict[str, str]
