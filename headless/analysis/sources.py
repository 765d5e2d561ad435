"""Names of the three sources whose findings are asked of every model."""

TALK = "Godey, de la Clergerie and Sagot, Language models have cone-shaped heads (talk)"
CONJECTURE = "Conjecture 2023, Basic Facts about Language Model Internals"
PAPER = "Ning and Rangaraju 2025, arXiv 2511.21594"
