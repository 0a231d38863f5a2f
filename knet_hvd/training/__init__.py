"""The programs behind ``jobs/``: configuration, training loop and checkpoints."""
