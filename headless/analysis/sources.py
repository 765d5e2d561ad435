"""Names of sources whose findings are asked of every model, and of what they disagree on."""

TALK = "Godey, de la Clergerie and Sagot, Language models have cone-shaped heads (talk)"
CONJECTURE = "Conjecture 2023, Basic Facts about Language Model Internals"
PAPER = "Ning and Rangaraju 2025, arXiv 2511.21594"

# Our own: what was found in one model or one text, and is asked of others.
MOBY_DICK = "Moby-Dick, measured with this laboratory's definitions"

# A model agrees with one side of each whatever it does.
ISOTROPY = "whether states are isotropic"
WEIGHT_TAILS = "whether trained weights are Gaussian"
