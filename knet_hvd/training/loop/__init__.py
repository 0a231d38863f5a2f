"""The training loop of both jobs: read ``trainer.py`` first, then ``task.py``."""
