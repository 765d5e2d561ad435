"""What becomes of a model when something is changed or asked of it: its loss, states, gradients."""
