"""Path B: codes in numbers that Horovod's own allreduce sums."""
