"""Many configs, many runs, one answer: arms tuned each for itself, seeds, budgets, workers."""
