"""A few handwritten digits as the networks see them, and smoothed labels."""

from stabcore.companion import first_digits


def digits(count, classes=None):
    return first_digits(count, classes or 1)


def smoothed(onehot, share=0.15):
    return (1 - share) * onehot + share / onehot.shape[1]
