"""Which saddles attract SGD."""
