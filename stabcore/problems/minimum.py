"""Global minima: what the stability theorems need to know of them, and how to find one.

At θ* with φ(θ*) = 0 the only data that matter are the gradients g_i = ∇F(θ*, x_i), and of those
only their Gram matrix K = JJᵀ, the empirical neural tangent kernel.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.csgraph import connected_components

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.problems.base import Problem
from stabcore.problems.checking import GRADIENT, require_problem
from stabcore.problems.losses import as_double, curvature_roots, preconditioned

# Eigenvalues of K below this fraction of the largest one are rounding: the gradients are then
# linearly dependent. A cosine below the second one is rounding: the gradients are orthogonal.
RANK_TOLERANCE = 1e-12

ORTHOGONALITY_TOLERANCE = 8 * EPSILON


class Minimum:
    r"""A global minimum, seen through its kernel K = JJᵀ.

    Build it from the gradients of your network, `Minimum.from_jacobian(J)`; from a kernel,
    `Minimum(K)`; with `Minimum.at(problem, point)`, which refuses points that are not minima; or
    with `find_minimum`. Immutable.

    With C outputs a sample owns C rows of J: rows i·C, ..., i·C + C − 1 belong to sample i. Its
    loss is ½ Σ_c φ_ic², and a batch moves all rows of its samples.

    Source: papers A (normal and tangent space) and D; several outputs are our derivation.

    Parameters
    ----------
    kernel : array, shape (N·C, N·C)
        K_ab = g_a·g_b, symmetric positive semidefinite.
    probabilities : array, shape (N,), optional
        Probability of each sample in the loss L = Σ p_i l_i; uniform by default.
    outputs : int
        C.

    Attributes
    ----------
    kernel, probabilities : arrays, shapes (N·C, N·C), (N,)
    n_samples, n_outputs : int
        N and C.
    point, jacobian : arrays, shapes (D,), (N·C, D), or None for a minimum known by its kernel

    Raises
    ------
    ValueError
        If the kernel is not square, symmetric, positive semidefinite and finite, or zero: then
        there is no normal direction and the theory is silent.

    Examples
    --------
    >>> import numpy as np
    >>> minimum = Minimum(np.diag([1.0, 4.0]))
    >>> minimum.rank, round(minimum.sharpness, 12)
    (2, 2.0)
    >>> Minimum(np.diag([1.0, 4.0]), outputs=2).sharpness  # one sample
    4.0
    """

    point: Array | None = None
    jacobian: Array | None = None

    @check.public()
    def __init__(
        self, kernel: ArrayLike, probabilities: ArrayLike | None = None, *, outputs: int = 1
    ) -> None:
        self.kernel = check.kernel(kernel)
        self.n_outputs = check.integer("outputs", outputs)
        self.n_samples, left = divmod(len(self.kernel), self.n_outputs)
        if left:
            raise ValueError(
                f"outputs is {self.n_outputs}, which does not divide the {len(self.kernel)} rows "
                "of kernel; every sample owns one row per output."
            )
        self.probabilities = check.probabilities(probabilities, self.n_samples)
        eigenvalues = self.spectrum
        _require_known_rank(eigenvalues, np.asarray(kernel).dtype)
        if eigenvalues[0] < -check.DEFINITENESS_TOLERANCE * np.abs(eigenvalues).max():
            raise ValueError(
                "kernel must be positive semidefinite, its smallest eigenvalue is "
                f"{eigenvalues[0]:.6g} (largest {eigenvalues[-1]:.6g}); a kernel J @ J.T always is."
            )
        if eigenvalues[-1] == 0:
            raise ValueError(
                "kernel is zero: all gradients vanish, the normal space is empty and neither "
                "theorem applies; pass a minimum at which some gradient is not zero."
            )
        for array in (self.kernel, self.probabilities):
            array.setflags(write=False)

    @classmethod
    @check.public()
    def from_jacobian(
        cls,
        jacobian: ArrayLike,
        *,
        residuals: ArrayLike | None = None,
        loss: str | ArrayLike = "half_square",
        labels: ArrayLike | None = None,
        preconditioner: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
        tolerance: float = 1e-9,
    ) -> Minimum:
        r"""Return the minimum at which the outputs of a network have these gradients.

        A loss with curvatures H_i in the outputs multiplies J_i by H_i^½, a preconditioner P,
        frozen, by P^-½ from the right; K is then that of the products. `step_size` is always the
        learning rate of the framework whose loss was named.

        Source: papers A and D for the half square; other losses and preconditioners are our
        derivation.

        Parameters
        ----------
        jacobian : array of NumPy, JAX or PyTorch, shape (N, D), or (N, C, D) for C outputs
            The gradient of every output of every sample, computed in double precision.
        residuals : array, shape (N,) or (N, C), optional
            F − y (for other losses than squares the gradient of each sample's loss in its outputs):
            what must be 0 here. Without it you vouch for that.
        loss : str or array, shape (N, C, C)
            "half_square" ½‖F − y‖², "mean_square" ‖F − y‖²/C (``torch.nn.MSELoss()``),
            "sum_square" ‖F − y‖², "cross_entropy"; or the curvature of each sample's loss. All are
            means over the samples.
        labels : array, shape (N, C), optional
            The smoothed labels, for cross-entropy: the softmax of the outputs at the minimum.
        preconditioner : array, shape (D,) or (D, D), optional
            P: the step is θ ← θ − ηP⁻¹∇L.
        probabilities : array, shape (N,), optional
            Uniform by default.
        tolerance : float
            Largest |residual| that counts as 0.

        Returns
        -------
        Minimum

        Raises
        ------
        ValueError
            If the array has another number of axes or single precision, all gradients are zero,
            residuals are not, labels are hard, or curvatures are no curvatures.

        Examples
        --------
        >>> minimum = Minimum.from_jacobian([[[1.0, 0.0], [0.0, 2.0]]])
        >>> minimum.n_samples, minimum.n_outputs, minimum.kernel.tolist()
        (1, 2, [[1.0, 0.0], [0.0, 4.0]])

        The mean over two outputs of squares is the half square here:

        >>> Minimum.from_jacobian([[[1.0, 0.0], [0.0, 2.0]]], loss="mean_square").sharpness
        4.0
        """
        array = as_double("jacobian", jacobian)
        if array.ndim not in (2, 3):
            raise ValueError(
                f"jacobian must have shape (samples, parameters) or (samples, outputs, "
                f"parameters), got {array.shape}; reshape it."
            )
        blocks = array[:, None] if array.ndim == 2 else array
        roots = curvature_roots(loss, labels, blocks.shape[:2])
        plain = isinstance(loss, str) and loss == "half_square"
        blocks = blocks if plain else roots @ blocks
        rows = preconditioned(blocks.reshape(-1, array.shape[-1]), preconditioner)
        if residuals is not None:
            largest = check.real("tolerance", tolerance, above=0.0)
            _require_interpolation(residuals, rows, roots, largest)
        minimum = cls(rows @ rows.T, probabilities, outputs=blocks.shape[1])
        rows.setflags(write=False)
        minimum.jacobian = rows
        return minimum

    @classmethod
    @check.public()
    def at(cls, problem: Problem, point: ArrayLike, tolerance: float = 1e-9) -> Minimum:
        """Return the minimum of `problem` at `point`.

        Parameters
        ----------
        problem : Problem
        point : array, shape (D,)
        tolerance : float
            Largest |φ| that still counts as interpolation, in units of the targets.

        Returns
        -------
        Minimum

        Raises
        ------
        ValueError
            If `point` has the wrong length or a residual larger than `tolerance`, or if the rank
            of J drops there (the minima then need not form a manifold with tangent space ker J,
            which both theorems assume).

        Examples
        --------
        >>> from stabcore import ReluPair
        >>> Minimum.at(ReluPair(), [2.0, 0.5]).kernel.round(6)
        array([[ 3.4425,  9.5625],
               [ 9.5625, 26.5625]])
        """
        require_problem(problem, GRADIENT)
        theta = check.finite_array("point", point, ndim=1)
        if theta.size != problem.n_parameters:
            raise ValueError(
                f"point has length {theta.size} but the problem has {problem.n_parameters} "
                "parameters."
            )
        largest = float(np.abs(problem.residuals(theta)).max())
        if not largest <= check.real("tolerance", tolerance, above=0.0):
            raise ValueError(
                f"point is not a minimum: its largest residual |φ| is {largest:.3e}, above the "
                f"tolerance {tolerance:.1e}; start find_minimum(problem, point) from it."
            )
        jacobian = problem.jacobian(theta)
        minimum = cls(jacobian @ jacobian.T, problem.probabilities, outputs=problem.n_outputs)
        _require_constant_rank(problem, theta, minimum.rank)
        minimum.point, minimum.jacobian = theta, jacobian
        for array in (theta, jacobian):
            array.setflags(write=False)
        return minimum

    @property
    def sharpness(self) -> float:
        """Largest eigenvalue of the Hessian of the loss."""
        return float(self.hessian_spectrum[-1])

    @cached_property
    def spectrum(self) -> Array:
        """Eigenvalues of K, ascending, shape (N·C,)."""
        return np.asarray(np.linalg.eigvalsh(self.kernel))

    @property
    def rank(self) -> int:
        """Dimension r of the normal space: the rank of K."""
        return int((self.spectrum > RANK_TOLERANCE * self.spectrum[-1]).sum())

    @cached_property
    def gradients(self) -> Array:
        """The rows of J in an orthonormal basis of the normal space: K = gradients @ .T."""
        eigenvalues, vectors = np.linalg.eigh(self.kernel)
        return np.asarray(vectors[:, -self.rank :] * np.sqrt(eigenvalues[-self.rank :]))

    @cached_property
    def normal_basis(self) -> Array:
        """Orthonormal basis of the normal space im Jᵀ in parameter space, shape (D, r)."""
        if self.jacobian is None:
            raise ValueError(
                "normal_basis needs a minimum in parameter space, this one is known by its kernel "
                "only; build it with Minimum.from_jacobian(J) or Minimum.at(problem, point)."
            )
        _, _, rows = np.linalg.svd(self.jacobian, full_matrices=False)
        return np.asarray(rows[: self.rank].T)

    @property
    def row_probabilities(self) -> Array:
        """Probability of the sample that owns each row, shape (N·C,)."""
        return np.repeat(self.probabilities, self.n_outputs)

    @cached_property
    def sample_curvatures(self) -> Array:
        """Eigenvalues k of each sample's block K_ii, ascending, shape (N, C).

        They are the curvatures of its loss: a batch of it alone multiplies by the 1 − ηk.
        """
        if self.n_outputs == 1:
            return np.asarray(np.diag(self.kernel)[:, None])
        size = self.n_outputs
        blocks = self.kernel.reshape(self.n_samples, size, self.n_samples, size)
        own = blocks[np.arange(self.n_samples), :, np.arange(self.n_samples)]
        return np.asarray(np.maximum(np.linalg.eigvalsh(own), 0.0))

    @cached_property
    def blocks(self) -> tuple[NDArray[np.intp], ...]:
        """Groups of rows with mutually orthogonal gradients (one group: no splitting)."""
        norms = np.sqrt(np.maximum(np.diag(self.kernel), 0))
        linked = np.abs(self.kernel) > ORTHOGONALITY_TOLERANCE * np.outer(norms, norms)
        count, labels = connected_components(linked, directed=False)
        return tuple(np.flatnonzero(labels == label) for label in range(count))

    @cached_property
    def hessian_spectrum(self) -> Array:
        """Eigenvalues κ_j of Hess L on the normal space, ascending, shape (r,).

        They are the non-zero eigenvalues of P^½ K P^½; κ_j = eig(K)/N for uniform p. Samples of
        probability zero take no part, so fewer than `rank` values may be positive; the others
        are 0: normal directions along which gradient descent does not move.
        """
        root = np.sqrt(self.row_probabilities)
        eigenvalues = np.linalg.eigvalsh(root[:, None] * self.kernel * root)[-self.rank :]
        return np.asarray(
            np.where(eigenvalues > RANK_TOLERANCE * eigenvalues[-1], eigenvalues, 0.0)
        )

    def __repr__(self) -> str:
        """Return the sizes that matter."""
        outputs = f"n_outputs={self.n_outputs}, " if self.n_outputs > 1 else ""
        return (
            f"Minimum(n_samples={self.n_samples}, {outputs}rank={self.rank}, "
            f"sharpness={self.sharpness:.6g})"
        )


def _require_interpolation(
    residuals: ArrayLike, rows: Array, roots: Array, tolerance: float
) -> None:
    """Refuse residuals that are not 0, and say how far away interpolation is."""
    given = as_double("residuals", residuals)
    samples, outputs = len(roots), roots.shape[2]
    if given.shape not in {(samples, outputs), (samples,) if outputs == 1 else ()}:
        raise ValueError(
            f"residuals must have shape {(samples, outputs)}, one for each gradient, got "
            f"{given.shape}."
        )
    largest = float(np.abs(given).max())
    if largest <= tolerance:
        return
    # The step of Gauss and Newton to where all are 0: J_i d = −φ_i, both multiplied by R_i.
    scaled = np.squeeze(roots @ given.reshape(samples, outputs, 1), -1).reshape(-1)
    step = float(np.linalg.norm(np.linalg.lstsq(rows, scaled, rcond=None)[0]))
    raise ValueError(
        f"residuals are not 0: the largest is {largest:.3g}, above the tolerance {tolerance:.1g}. "
        f"Interpolation is about {step:.3g} away in parameter space (one Gauss-Newton step), and "
        "the theorems speak of that point; train on, or move there first (find_minimum)."
    )


def _require_known_rank(eigenvalues: Array, dtype: np.dtype[Any]) -> None:
    """Refuse a kernel of single precision whose rank that precision leaves open."""
    if dtype.kind != "f" or np.finfo(dtype).eps <= EPSILON:
        return
    sizes, largest = np.abs(eigenvalues), float(np.abs(eigenvalues).max())
    blur = eigenvalues.size * float(np.finfo(dtype).eps) * largest
    doubtful = sizes[(sizes > RANK_TOLERANCE * largest) & (sizes <= blur)]
    if doubtful.size:
        raise ValueError(
            f"kernel is {dtype}: its eigenvalue {doubtful.max():.2g} (largest {largest:.2g}) may "
            "be rounding, so that its rank is not known; compute the Jacobian and J @ J.T in "
            "float64."
        )


def as_minimum(minimum: Minimum | ArrayLike) -> Minimum:
    """Return `minimum` itself, or the `Minimum` of a kernel matrix."""
    return minimum if isinstance(minimum, Minimum) else Minimum(minimum)


@check.public()
def find_minimum(
    problem: Problem,
    start: ArrayLike,
    *,
    tolerance: float = 1e-12,
    max_iterations: int = 200,
) -> Minimum:
    r"""Descend from `start` to a global minimum of `problem`.

    Levenberg-Marquardt in sample space, θ ← θ − Jᵀ(JJᵀ + νI)⁻¹φ, whose cost is one N×N
    factorisation a step however many parameters there are; ν falls with every success, so the
    last steps are Gauss-Newton's and converge quadratically.

    Parameters
    ----------
    problem : Problem
    start : array, shape (D,)
    tolerance : float
        Stop when every |φ_i| is below it.
    max_iterations : int

    Returns
    -------
    Minimum
        With `point` near `start`.

    Raises
    ------
    RuntimeError
        If the residuals do not fall below `tolerance`: the start is too far, or no interpolating
        parameter exists nearby.

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> minimum = find_minimum(ScalarFactorization(), [2.0, 1.0])
    >>> float(minimum.point.prod().round(12))
    1.0
    """
    require_problem(problem, GRADIENT)
    check.real("tolerance", tolerance, above=0.0)
    theta = check.finite_array("start", start, ndim=1)
    if theta.size != problem.n_parameters:
        raise ValueError(
            f"start has length {theta.size} but the problem has {problem.n_parameters} parameters."
        )
    residuals = problem.residuals(theta)
    damping = 1.0
    for _ in range(check.integer("max_iterations", max_iterations)):
        if np.abs(residuals).max() <= tolerance:
            return Minimum.at(problem, theta, tolerance)
        jacobian = problem.jacobian(theta)
        if not jacobian.any():
            break  # no gradient to follow
        kernel = jacobian @ jacobian.T
        floor = 1e-14 * np.trace(kernel) + np.finfo(float).tiny
        size = len(kernel)
        shifted = kernel + max(damping * np.trace(kernel) / size, floor) * np.eye(size)
        proposal = theta - jacobian.T @ cho_solve(cho_factor(shifted), residuals)
        proposed = problem.residuals(proposal)
        if np.linalg.norm(proposed) < np.linalg.norm(residuals):
            theta, residuals, damping = proposal, proposed, damping / 10
        else:
            damping = max(10 * damping, 1e-12)
        if damping > 1e12:
            break
    raise RuntimeError(
        f"no minimum found from start: the largest residual is still {np.abs(residuals).max():.3e} "
        f"(tolerance {tolerance:.1e}); try another start, more parameters, or a larger "
        "max_iterations."
    )


def _require_constant_rank(problem: Problem, theta: Array, rank: int) -> None:
    """Refuse a point near which J has a larger rank than `rank`."""
    # Full row rank makes the minima a manifold (implicit function theorem). A smaller rank does
    # too where it is constant (constant rank theorem), which a few random nearby points decide.
    if rank == problem.n_samples * problem.n_outputs:
        return
    nudges = np.random.default_rng(0).normal(size=(4, theta.size))
    jacobians = problem.jacobian(theta + 1e-4 * (1 + np.abs(theta)) * nudges)
    singular = np.linalg.svd(jacobians, compute_uv=False)
    largest = int((singular > np.sqrt(RANK_TOLERANCE) * singular[:, :1]).sum(axis=1).max())
    if largest > rank:
        raise ValueError(
            f"the jacobian has rank {rank} at point but {largest} nearby: the minima need not form "
            "a manifold with tangent space ker J there, a hypothesis of both theorems; choose "
            "another minimum, or pass the kernel itself if you only want the exponents."
        )
