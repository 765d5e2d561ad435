"""How far each form's head is from the truth, on contexts whose distributions are known.

    python scripts/check_heads.py [--output benchmarks/heads.json]

Scores of 20 contexts over 200 tokens are free parameters; each form of the loss is minimised on
random batches of N rows. The table holds the nats above the entropy of the true distribution under
the bare scores, with log p(v) added, and under the head that docs/theory.md derives for the form.
"""

import argparse
from pathlib import Path

import torch
from benchmarking import write
from torch import Tensor

from headless.objectives import ContrastiveWeightTying, log_unigram

CONTEXTS, V = 20, 200
FORMS = {
    "count": {},
    "mask": {"duplicates": "mask"},
    "unique": {"duplicates": "unique"},
    "logq": {"duplicates": "logq"},
    "logq, 50 sampled": {"duplicates": "logq", "num_sampled": 50},
    "unique, 50 sampled": {"duplicates": "unique", "num_sampled": 50},
}


def world() -> Tensor:
    """p(v | context) [CONTEXTS, V]: Zipf's law times log-normal noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(CONTEXTS, V, generator=generator, dtype=torch.float64)
    return (1.5 * noise - torch.arange(1, V + 1, dtype=torch.float64).log()).softmax(dim=-1)


def excess(options: dict, rows: int, steps: int) -> dict[str, float]:
    """Train one form; nats above the entropy under three heads."""
    p_CV = world()
    count_V = (p_CV.mean(dim=0) * 1e9).round().long()
    objective = ContrastiveWeightTying(**options).double()
    objective.setup(V, V, 0.02)
    objective.double().set_unigram(count_V)
    table = torch.eye(V, dtype=torch.float64)  # a hidden state is then the row of scores itself
    scores_CV = torch.zeros(CONTEXTS, V, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([scores_CV], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    torch.manual_seed(1)
    for _ in range(steps):
        context = torch.randint(CONTEXTS, (rows,))
        target = torch.multinomial(p_CV[context], 1).squeeze(1)
        optimizer.zero_grad()
        objective(scores_CV[context], target, table).loss.backward()
        optimizer.step()
        schedule.step()
    head = objective.lm_head(table, count_V)
    heads = {
        "bare": head._replace(bias_V=None, own_excess_V=None),
        "log p(v)": head._replace(bias_V=log_unigram(count_V), own_excess_V=None),
        "derived": head,
    }
    return {
        name: float(
            (p_CV * (p_CV.log() - h.logits(scores_CV.detach()).log_softmax(-1))).sum(-1).mean()
        )
        for name, h in heads.items()
    }


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/heads.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, dict[str, float]]] = {}
    print("| form | N | bare | log p(v) | derived |\n| --- | ---: | ---: | ---: | ---: |")
    for rows in (64, 256, 1024):
        for name, form in FORMS.items():
            found = excess(form, rows, options.steps)
            results.setdefault(name, {})[str(rows)] = found
            print(f"| {name} | {rows} | " + " | ".join(f"{x:.4f}" for x in found.values()) + " |")
    result = {"excess_nats": results, "steps": options.steps}
    write(options.output, result)


if __name__ == "__main__":
    main()
