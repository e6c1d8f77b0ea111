"""The laws of random matrix products: which factor is multiplied on at each step."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._random import alias_table
from stabcore._validation import Array
from stabcore.minima import Minimum, as_minimum
from stabcore.sampling import Sampling


class FiniteLaw:
    """Factors drawn independently from a finite list.

    Parameters
    ----------
    matrices : array, shape (m, d, d)
        The factors A_1, ..., A_m.
    probabilities : array, shape (m,), optional
        Uniform by default.

    Raises
    ------
    ValueError
        If the matrices are not square, or entries or probabilities are invalid.

    Examples
    --------
    >>> law = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]], [0.5, 0.5])
    >>> law.dimension
    2
    """

    def __init__(self, matrices: ArrayLike, probabilities: ArrayLike | None = None) -> None:
        self.matrices = check.finite_array("matrices", matrices, ndim=3)
        count, rows, columns = self.matrices.shape
        if rows != columns:
            raise ValueError(
                f"matrices must be square, got shape {self.matrices.shape}; pass (m, d, d)."
            )
        self.probabilities = check.probabilities(probabilities, count)
        for array in (self.matrices, self.probabilities):
            array.setflags(write=False)

    @property
    def dimension(self) -> int:
        """Dimension d of the space the factors act on."""
        return len(self.matrices[0])

    @cached_property
    def alias(self) -> tuple[Array, np.ndarray]:
        """The alias table of `probabilities`, for the compiled samplers."""
        return alias_table(self.probabilities)

    def __repr__(self) -> str:
        """Return the sizes."""
        return f"FiniteLaw({len(self.matrices)} factors, dimension={self.dimension})"


class SGDLaw:
    r"""The factors of SGD linearised at a minimum: A_S = (I − (η/B) Σ_{i∈S} g_i g_iᵀ) on N.

    The law is never written out as matrices. In residual coordinates a factor is
    I − (η/B) K E_S, one O(N) update per sample; it has the same exponents on the normal space N.

    Source: papers A and D (definition on the normal space); the residual coordinates are our
    derivation.

    Parameters
    ----------
    kernel : Minimum or array, shape (N, N)
        The minimum, or its kernel K = JJᵀ.
    step_size : float
        η > 0.
    batch_size : int
        B.
    probabilities : array, shape (N,), optional
        Probability of drawing each sample; those of the minimum (uniform for a kernel) by default.
    replacement : bool, optional
        Whether a batch may repeat a sample; see `Sampling`.

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    >>> SGDLaw([[1.0, 0.0], [0.0, 3.0]], 0.5).dimension
    2
    """

    def __init__(
        self,
        kernel: Minimum | ArrayLike,
        step_size: float,
        batch_size: int = 1,
        probabilities: ArrayLike | None = None,
        replacement: bool | None = None,
    ) -> None:
        self.minimum = as_minimum(kernel)
        self.step_size = check.step_size(step_size)
        if probabilities is None:
            probabilities = self.minimum.probabilities
        self.sampling = Sampling(self.minimum.n_samples, batch_size, probabilities, replacement)

    @property
    def dimension(self) -> int:
        """Dimension of the normal space, the rank of K."""
        return self.minimum.rank

    def finite(self, limit: int = 100_000) -> FiniteLaw:
        """Return the law written out as matrices in an orthonormal basis of the normal space.

        Parameters
        ----------
        limit : int
            Largest number of batches to write out.

        Returns
        -------
        FiniteLaw
            Of dimension `rank`.

        Raises
        ------
        ValueError
            If there are more than `limit` batches.

        Examples
        --------
        >>> SGDLaw([[2.0]], 0.25).finite().matrices.round(12)
        array([[[0.5]]])
        """
        if self.sampling.count > limit:
            raise ValueError(
                f"the law has {self.sampling.count} different batches, above the limit {limit}; "
                "use a smaller batch_size, raise limit, or a method that does not write it out."
            )
        gradients = self.minimum.gradients
        rate = self.step_size / self.sampling.batch_size
        batches, probabilities = zip(*self.sampling.batches(), strict=True)
        rows = gradients[np.array(batches)]
        matrices = np.eye(self.dimension) - rate * np.swapaxes(rows, 1, 2) @ rows
        return FiniteLaw(matrices, np.array(probabilities) / np.sum(probabilities))

    def __repr__(self) -> str:
        """Return the sizes that matter."""
        return (
            f"SGDLaw(n_samples={self.minimum.n_samples}, step_size={self.step_size:g}, "
            f"batch_size={self.sampling.batch_size}, dimension={self.dimension})"
        )


Law = FiniteLaw | SGDLaw


def require_law(law: Law) -> None:
    """Refuse what is not a law, a bare kernel above all."""
    if not isinstance(law, Law):
        raise TypeError(
            f"law must be a FiniteLaw or an SGDLaw, got {type(law).__name__}; "
            "for a kernel K and a step size use SGDLaw(K, step_size)."
        )
