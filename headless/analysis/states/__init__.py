"""Hidden states of a model: captured, summed up in one pass, and numbers from the sums."""
