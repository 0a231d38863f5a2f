"""Gradients that cross together, and the memory that they cross from."""
