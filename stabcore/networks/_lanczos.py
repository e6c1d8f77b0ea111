r"""Both ends of the spectrum of a matrix that is known by its products, with their residuals.

SciPy's ``eigsh`` finds the large end as well. It returns nothing where the small end has not
converged, and there the small end of a kernel often stays: its eigenvalues crowd near 0. What has
been found by then is still a bound, so that Lanczos' method is written out here, with one space for
both ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from stabcore._constants import EPSILON
from stabcore._validation import Array

LARGE_END = 1e-10  # residual of the largest eigenvalue, relative to it

SMALL_END = 1e-6  # the same of the smallest

EVERY = 5  # products between two looks at the ends


@dataclass(frozen=True)
class Ends:
    """The extreme Ritz values, their residuals, and the vector of the smallest.

    Both values are Rayleigh quotients: the smallest eigenvalue is at most `smallest`, the largest
    at least `largest`. Within a residual of each lies an eigenvalue.
    """

    smallest: float
    largest: float
    smallest_residual: float
    largest_residual: float
    slowest: Array
    products: int

    @property
    def converged(self) -> bool:
        """Whether both are known to the digits that were wanted."""
        rounding = 64 * EPSILON * self.largest
        return (
            self.largest_residual <= LARGE_END * self.largest
            and self.smallest_residual <= SMALL_END * self.smallest + rounding
        )


def ends(multiply: Callable[[Array], Array], start: Array, most: int) -> Ends:
    """Return the ends of the spectrum of a symmetric matrix, by at most so many products.

    Parameters
    ----------
    multiply : callable
        From a vector to the matrix times it.
    start : array, shape (n,)
        Where Lanczos' method starts; random, so that it is orthogonal to no eigenvector.
    most : int
        Products, and vectors of length n that are kept.

    Returns
    -------
    Ends
    """
    count = min(most, start.size)
    basis = np.empty((count, start.size))
    diagonal, beside = np.empty(count), np.empty(count)
    vector = start / np.linalg.norm(start)
    for step in range(count):
        basis[step] = vector
        image = multiply(vector)
        diagonal[step] = vector @ image
        seen = basis[: step + 1]
        for _ in range(2):  # twice is enough for orthogonality to rounding
            image = image - seen.T @ (seen @ image)
        beside[step] = np.linalg.norm(image)
        last = step == count - 1 or beside[step] <= EPSILON * np.abs(diagonal[: step + 1]).max()
        if last or step % EVERY == EVERY - 1:
            found = _ends(diagonal[: step + 1], beside[: step + 1], seen)
            if last or found.converged:
                break
        vector = image / beside[step]
    return found


def _ends(diagonal: Array, beside: Array, basis: Array) -> Ends:
    """Return the ends that a tridiagonal matrix knows of."""
    values, vectors = eigh_tridiagonal(diagonal, beside[:-1])
    residuals = np.abs(beside[-1] * vectors[-1])
    if diagonal.size == basis.shape[1]:  # the whole space: what is left over is rounding
        residuals[:] = 0.0
    return Ends(
        smallest=float(values[0]),
        largest=float(values[-1]),
        smallest_residual=float(residuals[0]),
        largest_residual=float(residuals[-1]),
        slowest=np.asarray(vectors[:, 0] @ basis),
        products=diagonal.size,
    )
