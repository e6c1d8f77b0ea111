"""Symmetries of a map among permutations and changes of sign of its coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations, product

import numpy as np

from stabcore._validation import Array
from stabcore.descent._shooting import Dynamics

ALL_UP_TO = 3  # coordinates, of which all 2^D D! signed permutations are tried

MANY = 64  # coordinates, beyond which only x → −x is tried

POINTS = 16

TOLERANCE = 1e-12  # relative; sums in another order. What is no symmetry is off by far more


def symmetries_of(dynamics: Dynamics, parameter: float, corners: Array) -> tuple[Array, ...]:
    """Return matrices S, but the identity, with G(Sx) = SG(x) at random points of a box."""
    # They generate a group of symmetries, in more than three dimensions perhaps not the whole one.
    low, high = corners
    points = np.random.default_rng(0).uniform(low, high, size=(POINTS, dynamics.dimension))
    with np.errstate(over="ignore", invalid="ignore"):
        images = dynamics.step(points, parameter)
        return tuple(
            matrix
            for matrix in _signed_permutations(dynamics.dimension)
            if _same(dynamics.step(points @ matrix.T, parameter), images @ matrix.T)
            and (dynamics.alive(points @ matrix.T) == dynamics.alive(points)).all()
        )


def _same(first: Array, second: Array) -> bool:
    scale = 1 + np.abs(second)
    return bool((np.abs(first - second) <= TOLERANCE * scale).all())


def _signed_permutations(size: int) -> Iterator[Array]:
    """Yield candidates: all of them in few dimensions, swaps and single and double signs beyond."""
    one = np.eye(size)
    if size <= ALL_UP_TO:
        for order in permutations(range(size)):
            for signs in product((1.0, -1.0), repeat=size):
                matrix = one[list(order)] * signs
                if not np.array_equal(matrix, one):
                    yield matrix
        return
    yield -one
    if size > MANY:
        return
    for i in range(size):
        yield one * np.where(np.arange(size) == i, -1.0, 1.0)
    for i, j in combinations(range(size), 2):
        yield one * np.where(np.isin(np.arange(size), (i, j)), -1.0, 1.0)
        swapped = np.arange(size)
        swapped[[i, j]] = j, i
        yield one[swapped]
