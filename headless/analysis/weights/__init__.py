"""What the weights say by themselves: a matrix source times a measure."""
