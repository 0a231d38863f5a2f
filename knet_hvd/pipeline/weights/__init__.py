"""Weights of other steps: kept copies and predictions."""
