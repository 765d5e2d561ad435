"""Fine-tuning on labelled text: sentences, pairs of sentences, regression."""
