"""What is reached: the same seeds with each method."""
