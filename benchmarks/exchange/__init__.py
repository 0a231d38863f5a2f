"""Averaging gradients: time, bytes, memory and the predictor."""
