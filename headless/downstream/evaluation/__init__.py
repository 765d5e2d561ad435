"""Log-likelihoods of text as scores of tasks, with the definitions of lm-evaluation-harness."""
