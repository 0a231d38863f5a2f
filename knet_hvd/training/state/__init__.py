"""What a run continues from: the state of each rank, saved and restored."""
