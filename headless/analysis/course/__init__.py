"""How a model came about: what its numbers do over training."""
