"""The laws of random matrix products: which factor is multiplied on at each step."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._random import alias_table
from stabcore._validation import Array
from stabcore.problems.minimum import Minimum, as_minimum
from stabcore.sampling import MOST_LISTED, SGD, covered_method


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
    method : SGD
        Only its batch size b has a meaning: every input is new.

    Raises
    ------
    ValueError
        If the method says how samples of a data set are drawn.
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    >>> GaussianInputLaw(3, 0.1, SGD(batch_size=2)).draw(10, rng=0).shape
    (10, 3, 3)
    """

    @check.public()
    def __init__(self, dimension: int, step_size: float, method: SGD = SGD()) -> None:
        self.step_size = check.step_size(step_size)
        self.batch_size = _only_batch_size(method)
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


def _only_batch_size(method: SGD) -> int:
    """Return the batch size of a method that says nothing else."""
    covered_method(method, "GaussianInputLaw")
    if method.batch_size is None or method != SGD(batch_size=method.batch_size):
        raise ValueError(
            f"method is {method}, but there is no data set to draw from: every input is new; "
            "pass SGD(batch_size=...) and nothing else."
        )
    return method.batch_size


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
    r"""The factors of SGD linearised at a minimum: A_S = (I − (η/B) Σ_{i∈S} J_iᵀJ_i) on N.

    J_i are the rows of J that belong to sample i: one, or C if the model has C outputs. The law is
    never written out as matrices. In residual coordinates a factor is I − (η/B) K E_S, E_S the
    projector on the rows of the batch; it has the same exponents on the normal space N. With
    importance sampling J_i is multiplied by w_i^½.

    Source: papers A and D (definition on the normal space); the residual coordinates and several
    outputs are our derivation.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel K = JJᵀ.
    step_size : float
        η > 0.
    method : SGD
        How batches are drawn. The factors of a reshuffled epoch are dependent, those of different
        epochs are not, and λ is still per step.

    Attributes
    ----------
    minimum, step_size, method
        As given.
    batches : Batches
        The law of the batches.

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    >>> SGDLaw([[1.0, 0.0], [0.0, 3.0]], 0.5).dimension
    2
    """

    @check.public()
    def __init__(self, minimum: Minimum | ArrayLike, step_size: float, method: SGD = SGD()) -> None:
        self.minimum = as_minimum(minimum)
        self.step_size = check.step_size(step_size)
        self.method = covered_method(method, "SGDLaw")
        self.batches = self.method.batches(self.minimum.n_samples, self.minimum.probabilities)

    def at(self, step_size: float) -> SGDLaw:
        """Return the same law at another step size.

        Parameters
        ----------
        step_size : float
            η > 0.

        Returns
        -------
        SGDLaw
        """
        law = copy(self)  # what does not depend on the step size is shared
        law.step_size = check.step_size(step_size)
        return law

    @property
    def dimension(self) -> int:
        """Dimension of the normal space, the rank of K."""
        return self.minimum.rank

    @cached_property
    def kernel(self) -> Array:
        """K, its rows and columns multiplied by w^½ where there is importance sampling."""
        root = self._row_scales
        if root is None:
            return self.minimum.kernel
        return np.asarray(root[:, None] * self.minimum.kernel * root)

    @cached_property
    def gradients(self) -> Array:
        """The rows of J in an orthonormal basis of N, multiplied by w^½; shape (N·C, r)."""
        root = self._row_scales
        gradients = self.minimum.gradients
        return gradients if root is None else np.asarray(root[:, None] * gradients)

    @cached_property
    def curvatures(self) -> Array:
        """Eigenvalues k of each sample's block, times w: it alone multiplies by the 1 − ηk."""
        return np.asarray(self.batches.scales[:, None] * self.minimum.sample_curvatures)

    @property
    def _row_scales(self) -> Array | None:
        """w^½ of every row; None where all are 1."""
        scales = self.batches.scales
        if (scales == 1).all():
            return None
        return np.repeat(np.sqrt(scales), self.minimum.n_outputs)

    def rows(self, batches: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the rows that belong to batches: shape (M, B) -> (M, B·C)."""
        outputs = np.arange(self.minimum.n_outputs)
        rows = batches[:, :, None] * self.minimum.n_outputs + outputs
        return np.asarray(rows.reshape(len(batches), -1))

    def finite(self, limit: int = MOST_LISTED) -> FiniteLaw:
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
        if self.batches.epoch_length > 1:
            raise ValueError(
                "the factors of a reshuffled law are not independent, so it is no FiniteLaw; "
                "use law.epochs(), whose factors are the products of whole epochs, "
                "lyapunov_exponent(law, 'monte_carlo'), or a method with reshuffle=False."
            )
        batches, probabilities = self.batches.listed(limit)
        return FiniteLaw(self._matrices(batches), probabilities / probabilities.sum())

    def epochs(self, limit: int = MOST_LISTED) -> FiniteLaw:
        """Return the law of the product of an epoch's factors, for reshuffled batches.

        These products are independent. Their exponent is per epoch: `batches.epoch_length` times
        that of a step.

        Parameters
        ----------
        limit : int
            Largest number of epochs to write out.

        Returns
        -------
        FiniteLaw
            Of dimension `rank`.

        Raises
        ------
        ValueError
            If there are more than `limit` epochs.

        Examples
        --------
        >>> SGDLaw([[1.0, 0.0], [0.0, 3.0]], 0.5, SGD(reshuffle=True)).epochs().matrices.round(12)
        array([[[ 0.5,  0. ],
                [ 0. , -0.5]],
        <BLANKLINE>
               [[ 0.5,  0. ],
                [ 0. , -0.5]]])
        """
        if self.batches.epoch_count > limit:
            raise ValueError(
                f"the law has {self.batches.epoch_count:,} different epochs, above the limit "
                f"{limit:,}; use lyapunov_exponent(law, 'monte_carlo')."
            )
        epochs, probabilities = zip(*self.batches.epochs(), strict=True)
        products = np.eye(self.dimension)
        for batches in np.swapaxes(np.array(epochs), 0, 1):
            products = self._matrices(batches) @ products
        return FiniteLaw(products, probabilities)

    def _matrices(self, batches: NDArray[np.intp]) -> Array:
        """Return the factors of batches, shape (M, B) -> (M, r, r)."""
        rows = self.gradients[self.rows(batches)]
        rate = self.step_size / self.batches.batch_size
        return np.asarray(np.eye(self.dimension) - rate * np.swapaxes(rows, 1, 2) @ rows)

    def __repr__(self) -> str:
        """Return the sizes that matter."""
        return (
            f"SGDLaw(n_samples={self.minimum.n_samples}, step_size={self.step_size:g}, "
            f"{self.method}, dimension={self.dimension})"
        )


class MomentumLaw:
    r"""The factors of SGD with momentum β, linearised at a minimum: 2r × 2r matrices.

    They act on pairs (θ_n, θ_{n−1}) of positions in the normal space, r-dimensional. With
    h_S = (1/B) Σ_{i∈S} J_iᵀJ_i they are

        heavy ball  [[(1 + β)I − ηh_S, −βI], [I, 0]],
        Nesterov    [[(1 + β)X, −βX], [I, 0]],  X = I − ηh_S.

    The determinant of a heavy ball's factor is β^r whatever the batch: its 2r exponents sum to
    r log β, and λ ≥ ½ log β. Tangent directions, in which nothing pulls, would add 0 and log β.

    Source: standard; the form on the normal space is our derivation.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel K = JJᵀ.
    step_size : float
        η > 0.
    method : SGD
        With momentum.

    Attributes
    ----------
    minimum, step_size, method
        As given.
    plain : SGDLaw
        The same without momentum.
    batches : Batches
        The law of the batches.

    Raises
    ------
    ValueError
        If the method has no momentum.
    NotImplementedError
        If it has weight decay.

    Examples
    --------
    >>> MomentumLaw([[2.0]], 0.25, SGD(momentum=0.5)).finite().matrices
    array([[[ 1. , -0.5],
            [ 1. ,  0. ]]])
    """

    @check.public()
    def __init__(self, minimum: Minimum | ArrayLike, step_size: float, method: SGD) -> None:
        self.method = covered_method(method, "MomentumLaw", "momentum")
        if not self.method.momentum:
            raise ValueError(f"method must have momentum, got {method}; use SGDLaw without it.")
        plain = replace(self.method, momentum=0.0, nesterov=False)
        self.plain = SGDLaw(minimum, step_size, plain)
        self.minimum, self.batches = self.plain.minimum, self.plain.batches

    @property
    def step_size(self) -> float:
        """η."""
        return self.plain.step_size

    @property
    def dimension(self) -> int:
        """Twice the dimension of the normal space."""
        return 2 * self.plain.dimension

    def at(self, step_size: float) -> MomentumLaw:
        """Return the same law at another step size.

        Parameters
        ----------
        step_size : float
            η > 0.

        Returns
        -------
        MomentumLaw
        """
        law = copy(self)
        law.plain = self.plain.at(step_size)
        return law

    def finite(self, limit: int = MOST_LISTED) -> FiniteLaw:
        """Return the law written out as matrices.

        Parameters
        ----------
        limit : int
            Largest number of batches to write out.

        Returns
        -------
        FiniteLaw
            Of dimension 2r.

        Raises
        ------
        ValueError
            If there are more than `limit` batches, or they are drawn in epochs longer than a step.
        """
        plain = self.plain.finite(limit)
        return FiniteLaw(self.factors(plain.matrices), plain.probabilities)

    def factors(self, plain: Array) -> Array:
        """Return the factors for those without momentum, X = I − ηh.

        Parameters
        ----------
        plain : array, shape (m, r, r)

        Returns
        -------
        array, shape (m, 2r, 2r)
        """
        beta, order = self.method.momentum, plain.shape[1]
        one = np.broadcast_to(np.eye(order), plain.shape)
        if self.method.nesterov:
            top = [(1 + beta) * plain, -beta * plain]
        else:
            top = [beta * one + plain, -beta * one]
        return np.block([top, [one, np.zeros_like(plain)]])

    def __repr__(self) -> str:
        """Return the sizes that matter."""
        return (
            f"MomentumLaw(n_samples={self.minimum.n_samples}, step_size={self.step_size:g}, "
            f"{self.method}, dimension={self.dimension})"
        )


Law = FiniteLaw | SGDLaw  # its factors can be listed

AnyLaw = Law | SampledLaw | MomentumLaw

IsotropicLaw = GaussianMatrixLaw | GaussianInputLaw | UniformDirectionLaw


def require_law(law: AnyLaw, kinds: Any = Law) -> None:
    """Refuse what is not a law of one of the `kinds`, a bare kernel above all."""
    if not isinstance(law, kinds):
        listed = "a FiniteLaw or an SGDLaw"
        if kinds is AnyLaw:
            listed = "a FiniteLaw, SGDLaw, MomentumLaw or SampledLaw"
        raise TypeError(
            f"law must be {listed}, got {type(law).__name__}; for a kernel K and a step size use "
            "SGDLaw(K, step_size); a SampledLaw(sampler, dimension) needs Monte Carlo, and a "
            "MomentumLaw is listed by its finite()."
        )
