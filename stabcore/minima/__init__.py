"""Which minima gradient descent and SGD can end at."""
