"""What a worker of an elastic job does: commit, restore, watch its host."""
