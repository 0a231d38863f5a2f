"""Jobs that are disturbed, and what checkpoints cost."""
