"""Pipelines: time and placement."""
