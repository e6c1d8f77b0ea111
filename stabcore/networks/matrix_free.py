r"""μ and λ without the kernel: from products with the Jacobian and its transpose alone.

With N samples, C outputs and D parameters the kernel has (N·C)² entries and the Jacobian N·C·D: at
N = 2,000 and C = 10 the kernel takes 3.2 GB. Here neither is formed. What is held are vectors of
length D and dual coordinates of shape (N, C), some for each replica.

* Both ends of the spectrum of K/N come from one run of Lanczos' method; they decide μ.
* λ comes from random products in parameter space, v ← v − (η/B) Σ_{i∈S} J_iᵀJ_i v. Followed naively
  they leak: rounding gives v a part outside the row space, which no step shrinks, and in the end λ
  comes out as 0 instead of below. So v = Jᵀa is followed with its dual coordinates a,
  a_i ← a_i − (η/B) J_i v, and computed anew from them before much is lost.

A network written with JAX is one instance (`without_kernel`); any two functions that multiply by
J_i and J_iᵀ will do (`JacobianProducts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._jax import double_precision, jax
from stabcore._log_sums import log_abs_one_minus
from stabcore._random import stream_states
from stabcore._validation import Array
from stabcore.exponent import Exponent
from stabcore.lyapunov.momentum import momentum_exponent
from stabcore.lyapunov.proofs import NEGATIVE, inside
from stabcore.lyapunov.simulated_products import SHADOWS, check_options, estimate, warn_if_short
from stabcore.networks._dual_walks import DualWalk
from stabcore.networks._engines import Compiled, Engine, Plain
from stabcore.networks._lanczos import Ends, ends
from stabcore.problems.losses import as_double
from stabcore.problems.minimum import RANK_TOLERANCE
from stabcore.sampling import SGD, Batches, covered_method

SAME_PRODUCT = 1e-10  # relative; double precision is off by far less, single precision by more

Products = Callable[[Any, Any], Any]


@dataclass(frozen=True, kw_only=True)
class JacobianProducts:
    """The Jacobian of all samples, as two functions.

    Attributes
    ----------
    n_samples, n_outputs, n_parameters : int
        N, C and D; N·C ≤ D.
    jvp : callable
        ``jvp(samples, v)``: indices (B,) and a vector (D,) to J_i v of these samples, (B, C).
    vjp : callable
        ``vjp(samples, a)``: indices (B,) and weights (B, C) to Σ J_iᵀa_i, (D,).

    Both compute in double precision. Plain functions of NumPy arrays are called for every step of
    every replica. Two ``jax.tree_util.Partial`` are compiled, for all replicas at once; arrays that
    they hold are arguments of theirs, and another network of the same shape is not compiled again.

    For another loss than the half square J_i is H_i^½ times the gradients of the outputs, H_i the
    curvature of the sample's loss.

    Examples
    --------
    >>> J = np.array([[[1.0, 2, 0, 1], [0, 1, 1, 0]]])
    >>> products = JacobianProducts(
    ...     n_samples=1,
    ...     n_outputs=2,
    ...     n_parameters=4,
    ...     jvp=lambda samples, v: J[samples] @ v,
    ...     vjp=lambda samples, a: np.einsum("bc,bcd->d", a, J[samples]),
    ... )
    >>> round(MatrixFreeMinimum(products).sharpness, 12)  # of [[6, 2], [2, 2]]
    6.828427124746
    """

    n_samples: int
    n_outputs: int
    n_parameters: int
    jvp: Products
    vjp: Products

    def __post_init__(self) -> None:
        """Validate the sizes."""
        for name in ("n_samples", "n_outputs", "n_parameters"):
            check.integer(name, getattr(self, name))
        for name in ("jvp", "vjp"):
            if not callable(getattr(self, name)):
                raise TypeError(
                    f"{name} must be a function, got {check.short(getattr(self, name))}."
                )
        rows = self.n_samples * self.n_outputs
        if rows > self.n_parameters:
            raise ValueError(
                f"{self.n_samples} samples with {self.n_outputs} outputs have {rows:,} gradients "
                f"of {self.n_parameters:,} parameters: they are linearly dependent, and dual "
                "coordinates are not unique; take fewer samples, or the kernel "
                "(Minimum.from_jacobian)."
            )


class MatrixFreeMinimum:
    """A minimum that is known by products with its Jacobian.

    Parameters
    ----------
    products : JacobianProducts
        At a point where every sample's loss is smallest; you vouch for that, and for gradients
        that are linearly independent. Dependent ones cannot be seen cheaply: a run that suffers
        from them stops and says so.
    most_products : int
        Of Lanczos' method, each with K: two passes over the data.

    Attributes
    ----------
    n_samples, n_outputs, n_parameters : int
        N, C and D.
    params : pytree or None
        Of a network, in double precision.
    moved, largest_residual : float
        How far the parameters were moved, and the largest residual before that.

    Raises
    ------
    ValueError
        If the products have other shapes than they say, are computed in single precision, are not
        those of one matrix and its transpose, or depend on the other samples of the batch.

    Examples
    --------
    See `JacobianProducts` and `without_kernel`.
    """

    params: Any = None
    moved: float = 0.0
    largest_residual: float = 0.0

    @check.public()
    def __init__(self, products: JacobianProducts, *, most_products: int = 300) -> None:
        check.instance("products", products, JacobianProducts)
        self.products = products
        self.most_products = check.integer("most_products", most_products)
        self.n_samples, self.n_outputs = products.n_samples, products.n_outputs
        self.n_parameters = products.n_parameters
        self.engine = _engine(products)
        _require_one_matrix(products, self.engine)

    @property
    def sharpness(self) -> float:
        """Largest eigenvalue of the Hessian of the loss, that of K/N."""
        return self._ends.largest

    @cached_property
    def _ends(self) -> Ends:
        """The ends of the spectrum of K/N."""
        shape = self.n_samples, self.n_outputs

        def multiply(weights: Array) -> Array:
            vectors = self.engine.pull(weights.reshape(1, *shape))
            return self.engine.push(vectors).reshape(-1) / self.n_samples

        start = np.random.default_rng(0).normal(size=self.n_samples * self.n_outputs)
        found = ends(multiply, start, self.most_products)
        if found.largest <= 0:
            raise ValueError(
                "the Jacobian is zero: there is no normal direction, and the theory is silent; "
                "choose a minimum at which some gradient is not zero."
            )
        return found

    def _independent_ends(self) -> Ends:
        """Return the ends, and refuse a small one that is 0: it is not on the normal space."""
        found = self._ends
        if found.smallest <= RANK_TOLERANCE * found.largest:
            raise ValueError(
                f"the gradients are linearly dependent to working precision (eigenvalues of K/N "
                f"from {found.smallest:.2g} to {found.largest:.2g}); leave samples out, or use the "
                "kernel (Minimum.from_jacobian), which sees the rank."
            )
        return found

    @cached_property
    def _largest_block(self) -> float:
        """The largest eigenvalue of the blocks J_iJ_iᵀ: the largest curvature of one sample."""
        return self.engine.largest_block()

    @check.public()
    def gd_exponent(self, step_size: float, method: SGD = SGD()) -> Exponent:
        r"""Return μ = log max_j |1 − ηκ_j|, as `stabcore.gd_exponent` does from the kernel.

        |1 − ηκ| is largest at an end of the spectrum. Where ηκ_max > 2 the large end decides, and
        that is found to ten digits. Otherwise the small end may. Lanczos' method approaches it from
        above, which bounds μ from below. From above μ is bounded with the residual where that is
        small, and else only by 0: no eigenvalue on the normal space is 0.

        Source: paper A (Theorem A).

        Parameters
        ----------
        step_size : float
            η > 0.
        method : SGD
            With momentum or without; how batches are drawn plays no part.

        Returns
        -------
        Exponent
            Of kind "deterministic"; its sign is decided by the large end.
        """
        eta = check.step_size(step_size)
        covered_method(method, "gd_exponent", "momentum")
        found = self._independent_ends()
        highest = found.largest + found.largest_residual
        lowest = 0.0
        if found.smallest_residual <= 1e-3 * found.smallest:
            lowest = found.smallest - found.smallest_residual
        inner = _of_curvatures(np.array([found.smallest, found.largest]), eta, method)
        outer = _of_curvatures(np.array([lowest, highest]), eta, method)
        # Of 1 − ηκ: products are known to a few roundings of the largest.
        rounding = 64 * EPSILON * (1 + eta * highest)
        upper = _widened(max(inner, outer), rounding)
        if _widened(_of_curvatures(np.array([highest]), eta, method), rounding) < 0:
            upper = min(upper, NEGATIVE)
        value = min(inner, upper)
        return Exponent(
            value=value,
            lower=min(value, _widened(inner, -rounding)),
            upper=upper,
            kind="deterministic",
            method="Lanczos",
            evaluations=found.products,
        )

    @check.public()
    def sgd_exponent(
        self,
        step_size: float,
        method: SGD = SGD(),
        *,
        rng: int | np.random.Generator | None = None,
        steps: int = 4_000,
        replicas: int = 16,
        transient: int | None = None,
    ) -> Exponent:
        r"""Return λ, as `stabcore.sgd_exponent` does from the kernel, by Monte Carlo.

        The interval and the status are those of `stabcore.lyapunov.monte_carlo`. Replicas start
        close to the slowest direction that Lanczos' method has found; eight are run again from a
        random start, to see whether the start is forgotten. With many samples K has eigenvalues
        close to 0, and a stable run hardly ever forgets: the status then says so. Two bounds are
        proven whatever the run: where every step contracts, η max_i λ_max(J_iJ_iᵀ) < 2, λ is below
        0; with the heavy ball λ ≥ ½ log β.

        Source: papers A (Theorem B) and D; the dual coordinates are our derivation.

        Parameters
        ----------
        step_size : float
            η > 0.
        method : SGD
            Batches with or without replacement, or reshuffled; momentum.
        rng : int, numpy.random.Generator or None
            Same seed, same result.
        steps : int
            Steps kept per replica.
        replicas : int
            At least 8.
        transient : int, optional
            Steps discarded; half of `steps` by default.

        Returns
        -------
        Exponent
            Of kind "statistical"; with full batches it is `gd_exponent`.

        Raises
        ------
        NotImplementedError
            If the method has weight decay or probabilities of its own.
        ValueError
            If the gradients are linearly dependent to working precision.
        """
        eta = check.step_size(step_size)
        generator = check.generator(rng)
        check_options(steps=steps, replicas=replicas, transient=transient)
        how = covered_method(method, "sgd_exponent", "momentum")
        if how.probabilities is not None:
            raise NotImplementedError(
                "sgd_exponent() without the kernel draws all samples alike, and got a method with "
                "probabilities; leave them out, or use the kernel (Minimum.from_jacobian)."
            )
        batches = how.batches(self.n_samples)
        if batches.full_batch:
            return self.gd_exponent(eta, how)
        half = _whole_epochs(batches, (steps + 1) // 2)
        first = half if transient is None else _whole_epochs(batches, transient)
        # In this order, so that the batches are those of `monte_carlo` with the same seed.
        streams = stream_states(generator, replicas)
        walk = DualWalk(
            self.engine, eta, how, batches, streams, self._starts(generator, how, replicas)
        )
        growth = walk.follow([first, half, half])[:, 1:] / half
        evaluations = len(growth) * (first + 2 * half)
        result = estimate(growth[:replicas], growth[replicas:], evaluations)
        result = inside(result, self._proven(eta, how))
        warn_if_short(result)
        return result

    def _starts(self, rng: np.random.Generator, method: SGD, replicas: int) -> Array:
        """Return dual coordinates of the vectors to follow and of the shadows, (k, R, N, C)."""
        # As those of `monte_carlo`: all are random, so that no invariant subspace can hold them;
        # those followed lean towards the direction that contracts most slowly.
        pairs = 2 if method.momentum else 1
        shape = pairs, replicas + SHADOWS, self.n_samples, self.n_outputs
        starts = rng.normal(size=shape)
        slow = self._independent_ends().slowest.reshape(shape[2:])
        position = starts[0, :replicas]
        images, image = self.engine.pull(starts[0])[:replicas], self.engine.pull(slow[None])[0]
        signs = np.where(images @ image < 0, -1.0, 1.0)
        sizes = np.linalg.norm(images, axis=1) / np.linalg.norm(image)
        position += (signs * sizes)[:, None, None] * slow
        return starts

    def _proven(self, eta: float, method: SGD) -> Exponent:
        """Return the bounds of λ that cost one pass over the data."""
        lower, upper, proof = -np.inf, np.inf, ""
        if not method.momentum:
            largest = eta * self._largest_block * (1 + 1e-12)
            upper = NEGATIVE if largest < 2 else float(np.log(largest - 1)) + 1e-12
            proof = "every step contracts" if largest < 2 else ""
        elif not method.nesterov:
            lower = float(np.log(method.momentum)) / 2 * (1 + 4 * EPSILON)
        return Exponent(
            value=upper if np.isfinite(upper) else lower,
            lower=lower,
            upper=upper,
            kind="enclosure",
            method=proof or ("largest step" if np.isfinite(upper) else "determinant"),
            proof=proof,
        )

    def __repr__(self) -> str:
        """Return the sizes."""
        return (
            f"MatrixFreeMinimum(n_samples={self.n_samples}, n_outputs={self.n_outputs}, "
            f"n_parameters={self.n_parameters})"
        )


def _engine(products: JacobianProducts) -> Engine:
    compiled = (isinstance(f, jax.tree_util.Partial) for f in (products.jvp, products.vjp))
    return Compiled(products) if all(compiled) else Plain(products)


def _require_one_matrix(products: JacobianProducts, engine: Engine) -> None:
    """Refuse products that are not those of one matrix and its transpose, sample by sample."""
    rng = np.random.default_rng(0)
    shape = products.n_samples, products.n_outputs
    vector, weights = rng.normal(size=products.n_parameters), rng.normal(size=shape)
    few = np.unique(rng.integers(products.n_samples, size=2))
    with double_precision():
        seen = as_double("jvp(samples, v)", products.jvp(few, vector))
        back = as_double("vjp(samples, a)", products.vjp(few, weights[few]))
    for name, found, wanted in (
        ("jvp", seen.shape, (few.size, shape[1])),
        ("vjp", back.shape, (products.n_parameters,)),
    ):
        if found != wanted:
            raise ValueError(
                f"{name} must return an array of shape {wanted} for {few.size} samples, got "
                f"{found}; see JacobianProducts."
            )
    image, pulled = engine.push(vector[None])[0], engine.pull(weights[None])[0]
    size = float(np.linalg.norm(image) * np.linalg.norm(weights))
    if not abs(np.vdot(image, weights) - pulled @ vector) <= SAME_PRODUCT * size:
        raise ValueError(
            f"jvp and vjp are not the products of one matrix and its transpose: a·(Jv) = "
            f"{np.vdot(image, weights):.12g} but (Jᵀa)·v = {pulled @ vector:.12g}. Both must be "
            "computed in double precision, at the same parameters."
        )
    if not np.abs(seen - image[few]).max() <= SAME_PRODUCT * np.abs(image).max():
        raise ValueError(
            "jvp of a few samples is not the part of jvp of all that belongs to them: a sample "
            "depends on the others of its batch, as with batch normalisation in training mode; use "
            "evaluation mode."
        )


def _of_curvatures(curvatures: Array, eta: float, method: SGD) -> float:
    """Return μ for some eigenvalues of the Hessian."""
    if method.momentum:
        return momentum_exponent(curvatures, eta, method).value
    return float(log_abs_one_minus(eta * curvatures).max())


def _widened(logarithm: float, change: float) -> float:
    """Return log(exp(logarithm) + change), −∞ where that is not positive."""
    if change >= 0:
        return float(np.logaddexp(logarithm, np.log(change)))
    share = -change * np.exp(-logarithm)
    return float(logarithm + np.log1p(-share)) if share < 1 else -np.inf


def _whole_epochs(batches: Batches, steps: int) -> int:
    return -(-steps // batches.epoch_length) * batches.epoch_length
