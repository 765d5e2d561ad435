"""An objective of your own: noise-contrastive estimation (Gutmann and Hyvärinen 2010).

headless pretrain --import my_objective --config configs/demo/headless.yaml \\
    --model.objective my_objective.NoiseContrastive --run.name mine
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from headless.objectives import LMHead, Objective, ObjectiveOutput, UniqueTargets, log_unigram


class NoiseContrastive(Objective):
    """Tell each row's target from K tokens drawn from the unigram distribution q.

    Args:
        num_sampled: K; the same draws serve all rows of a batch.
    """

    def __init__(self, num_sampled: int = 256) -> None:
        super().__init__()
        self.num_sampled = num_sampled

    def setup(self, vocab_size: int, hidden_size: int, initializer_range: float) -> None:
        self.register_buffer("log_unigram_V", torch.zeros(vocab_size))

    def set_unigram(self, count_V: Tensor) -> None:
        self.log_unigram_V.copy_(log_unigram(count_V))

    def forward(
        self,
        hidden_ND: Tensor,
        targets_N: Tensor,
        embedding_VD: Tensor,
        unique: UniqueTargets | None = None,
    ) -> ObjectiveOutput:
        noise_K = torch.multinomial(self.log_unigram_V.exp(), self.num_sampled, replacement=True)
        own_N = (hidden_ND * embedding_VD[targets_N.clamp(min=0)]).sum(dim=1).float()
        noise_NK = (hidden_ND @ embedding_VD[noise_K].T).float()
        odds = math.log(self.num_sampled)  # of noise, before the scores are seen
        loss_N = -logsigmoid(own_N - odds) - logsigmoid(odds - noise_NK).sum(dim=1)
        counts_N = targets_N != -100  # the label of rows that are not scored
        loss = (loss_N * counts_N).sum() / counts_N.sum().clamp(min=1)
        return ObjectiveOutput(loss, {"own_score": own_N.detach().mean()})

    def lm_head(self, embedding_VD: Tensor, unigram_count_V: Tensor) -> LMHead:
        # At the optimum h·e = log p(v | context) - log q(v).
        return LMHead(embedding_VD, log_unigram(unigram_count_V), is_calibrated=True)

    def num_candidates(self, vocab_size: int, num_unique: int, num_rows: int) -> int:
        return self.num_sampled + 1

    def describe(self) -> str:
        return f"noise-contrastive, {self.num_sampled} sampled"
