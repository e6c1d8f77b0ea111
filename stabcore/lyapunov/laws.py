"""The laws of random matrix products: which factor is multiplied on at each step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._random import alias_table
from stabcore._validation import Array
from stabcore.problems.minimum import Minimum, as_minimum
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


class SampledLaw:
    r"""Factors drawn independently by a function: laws with a density, or too many to list.

    Parameters
    ----------
    sampler : callable
        `sampler(rng, size)` returns `size` independent factors, shape (size, d, d), that it draws
        from the `numpy.random.Generator` it is given and from nothing else: it is called in
        blocks, from several threads, with a generator per replica.
    dimension : int
        d.

    Raises
    ------
    TypeError
        If `sampler` is not callable or does not return numbers.
    ValueError
        If it returns an array of another shape, or entries that are not finite.

    Examples
    --------
    >>> law = SampledLaw(lambda rng, size: rng.normal(size=(size, 3, 3)), 3)
    >>> law.draw(10, rng=0).shape
    (10, 3, 3)
    """

    def __init__(
        self, sampler: Callable[[np.random.Generator, int], ArrayLike], dimension: int
    ) -> None:
        if not callable(sampler):
            raise TypeError(
                f"sampler must be a function sampler(rng, size), got {type(sampler).__name__}; "
                "for a list of matrices use FiniteLaw."
            )
        self.sampler = sampler
        self.dimension = check.integer("dimension", dimension)
        self.draw(2, rng=0)  # a wrong sampler is refused here, not in the middle of a run

    def draw(self, size: int, rng: int | np.random.Generator | None = None) -> Array:
        """Return `size` independent factors, shape (size, d, d).

        Parameters
        ----------
        size : int
        rng : int, numpy.random.Generator or None

        Returns
        -------
        array, shape (size, d, d)

        Raises
        ------
        ValueError
            If the sampler returns an array of another shape, or entries that are not finite.
        """
        shape = (check.integer("size", size), self.dimension, self.dimension)
        drawn = self.sampler(check.generator(rng), shape[0])
        factors = check.finite_array("sampler(rng, size)", drawn, ndim=3)
        if factors.shape != shape:
            raise ValueError(
                f"sampler(rng, size) must return shape (size, d, d) = {shape}, got {factors.shape}."
            )
        return factors

    def __repr__(self) -> str:
        """Return the size."""
        return f"SampledLaw(dimension={self.dimension})"


class GaussianMatrixLaw(SampledLaw):
    r"""Factors whose d² entries are independent and normal, N(0, 1).

    The law of A does not change when A is multiplied by a rotation: it is isotropic
    (`stabcore.lyapunov.isotropic`), and all its exponents are known.

    Parameters
    ----------
    dimension : int
        d.

    Raises
    ------
    ValueError
        If `dimension` is not positive.

    Examples
    --------
    >>> GaussianMatrixLaw(3).draw(10, rng=0).shape
    (10, 3, 3)
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = check.integer("dimension", dimension)
        self.sampler = self._factors

    def _factors(self, rng: np.random.Generator, size: int) -> Array:
        """Return normal entries."""
        return rng.normal(size=(size, self.dimension, self.dimension))

    def __repr__(self) -> str:
        """Return the size."""
        return f"GaussianMatrixLaw(dimension={self.dimension})"


class GaussianInputLaw(SampledLaw):
    r"""SGD on fresh isotropic Gaussian inputs: A = I − (η/b) Σ_j x_j x_jᵀ, x_j ~ N(0, I_d).

    These are the steps of linear regression, ½ (θ·x − y)² with y a linear function of x, when no
    input is ever seen twice. The law is isotropic: QAQᵀ has the law of A for every rotation Q.

    Source: our derivation.

    Parameters
    ----------
    dimension : int
        d.
    step_size : float
        η > 0.
    batch_size : int
        b.

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    >>> GaussianInputLaw(3, 0.1, batch_size=2).draw(10, rng=0).shape
    (10, 3, 3)
    """

    def __init__(self, dimension: int, step_size: float, batch_size: int = 1) -> None:
        self.step_size = check.step_size(step_size)
        self.batch_size = check.integer("batch_size", batch_size)
        self.dimension = check.integer("dimension", dimension)
        self.sampler = self._factors

    def _factors(self, rng: np.random.Generator, size: int) -> Array:
        """Return I − (η/b) XᵀX for inputs X of shape (size, b, d)."""
        if self.batch_size < self.dimension:
            inputs = rng.normal(size=(size, self.batch_size, self.dimension))
        else:
            inputs = self._triangles(rng, size)
        rate = self.step_size / self.batch_size
        return np.asarray(np.eye(self.dimension) - rate * np.swapaxes(inputs, 1, 2) @ inputs)

    def _triangles(self, rng: np.random.Generator, size: int) -> Array:
        """Return upper triangles R whose RᵀR have the law of XᵀX: d² numbers for any batch."""
        # R is that of the QR decomposition of X: its entries are independent, normal above the
        # diagonal, and R_ii² is χ² of b − i degrees of freedom, i = 0, 1, ... (Bartlett).
        order = self.dimension
        triangles = np.triu(rng.normal(size=(size, order, order)), 1)
        squares = rng.chisquare(self.batch_size - np.arange(order), size=(size, order))
        triangles[:, np.arange(order), np.arange(order)] = np.sqrt(squares)
        return triangles

    def __repr__(self) -> str:
        """Return the parameters."""
        return (
            f"GaussianInputLaw(dimension={self.dimension}, step_size={self.step_size:g}, "
            f"batch_size={self.batch_size})"
        )


class UniformDirectionLaw(SampledLaw):
    r"""Factors A = I − κ u uᵀ, u uniform on the unit sphere of ℝᵈ.

    These are the steps of SGD on gradients of one length |g|, κ = η|g|², and of all directions;
    κ = 1 is the randomised Kaczmarz method. The law is isotropic: QAQᵀ has the law of A for every
    rotation Q.

    Source: our derivation.

    Parameters
    ----------
    dimension : int
        d.
    contraction : float
        κ > 0.

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    >>> UniformDirectionLaw(1, 0.25).draw(1, rng=0)
    array([[[0.75]]])
    """

    def __init__(self, dimension: int, contraction: float) -> None:
        self.contraction = check.step_size(contraction, "contraction")
        self.dimension = check.integer("dimension", dimension)
        self.sampler = self._factors

    def _factors(self, rng: np.random.Generator, size: int) -> Array:
        """Return I − κ x xᵀ / |x|² for normal x."""
        directions = rng.normal(size=(size, self.dimension))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        outer = directions[:, :, None] * directions[:, None, :]
        return np.asarray(np.eye(self.dimension) - self.contraction * outer)

    def __repr__(self) -> str:
        """Return the parameters."""
        return f"UniformDirectionLaw(dimension={self.dimension}, contraction={self.contraction:g})"


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
    reshuffle : bool
        Whether the batches run through the data in epochs; see `Sampling`. The factors of an
        epoch are then dependent, those of different epochs are not, and λ is still per step.

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
        reshuffle: bool = False,
    ) -> None:
        self.minimum = as_minimum(kernel)
        self.step_size = check.step_size(step_size)
        if probabilities is None:
            probabilities = self.minimum.probabilities
        self.sampling = Sampling(
            self.minimum.n_samples, batch_size, probabilities, replacement, reshuffle
        )

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
            If there are more than `limit` batches, or they are drawn in epochs longer than a step:
            the factors of one epoch are not independent.

        Examples
        --------
        >>> SGDLaw([[2.0]], 0.25).finite().matrices.round(12)
        array([[[0.5]]])
        """
        if self.sampling.epoch_length > 1:
            raise ValueError(
                "the factors of a reshuffled law are not independent, so it is no FiniteLaw; "
                "use lyapunov_exponent(law, 'monte_carlo'), or reshuffle=False."
            )
        if self.sampling.count > limit:
            raise ValueError(
                f"the law has {self.sampling.count} different batches, above the limit {limit}; "
                "use a smaller batch_size, raise limit, or a method that does not write it out."
            )
        gradients = self.minimum.gradients
        rate = self.step_size / self.sampling.batch_size
        batches, probabilities = self.sampling.all_batches()
        rows = gradients[batches]
        matrices = np.eye(self.dimension) - rate * np.swapaxes(rows, 1, 2) @ rows
        return FiniteLaw(matrices, probabilities / probabilities.sum())

    def __repr__(self) -> str:
        """Return the sizes that matter."""
        return (
            f"SGDLaw(n_samples={self.minimum.n_samples}, step_size={self.step_size:g}, "
            f"batch_size={self.sampling.batch_size}, dimension={self.dimension})"
        )


Law = FiniteLaw | SGDLaw  # its factors can be listed

AnyLaw = Law | SampledLaw

IsotropicLaw = GaussianMatrixLaw | GaussianInputLaw | UniformDirectionLaw


def require_law(law: AnyLaw, kinds: Any = Law) -> None:
    """Refuse what is not a law of one of the `kinds`, a bare kernel above all."""
    if not isinstance(law, kinds):
        listed = "a FiniteLaw or an SGDLaw" if kinds is Law else "a FiniteLaw, SGDLaw or SampledLaw"
        raise TypeError(
            f"law must be {listed}, got {type(law).__name__}; for a kernel K and a step size use "
            "SGDLaw(K, step_size); a SampledLaw(sampler, dimension) needs Monte Carlo."
        )
