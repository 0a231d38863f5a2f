"""What a stage does in a step, and in which order."""
