"""What a softmax head asks of the states: log p(v), neurons for it, and a narrow way back."""
