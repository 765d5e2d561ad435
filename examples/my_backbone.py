"""A backbone of your own: gated recurrent layers, where Transformers has attention.

    headless pretrain --import my_backbone --config configs/demo/base.yaml \\
        --config configs/objective/headless.yaml --run.name recurrent \\
        --model.backbone.custom my_backbone.Recurrent \\
        --model.backbone.extra '{width: 192, layers: 2}'

What is needed: `vocab_size` among the arguments, `get_input_embeddings()`, and a call with token
ids [B, T] that gives the last hidden states [B, T, D] (or an object with `last_hidden_state`, and
`hidden_states` for the monitors that look at every layer).
"""

from types import SimpleNamespace

from torch import Tensor, nn


class Recurrent(nn.Module):
    def __init__(self, vocab_size: int, width: int = 192, layers: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        states = [self.table(input_ids)]
        for layer in self.layers:
            states.append(states[-1] + layer(states[-1])[0])
        states[-1] = self.norm(states[-1])
        return SimpleNamespace(last_hidden_state=states[-1], hidden_states=tuple(states))
