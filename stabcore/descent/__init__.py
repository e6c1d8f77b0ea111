"""Gradient descent as a map: what it does, also beyond the last stable step size."""
