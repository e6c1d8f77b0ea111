r"""Deep linear networks: their global minima, how sharp these are, and the flattest one.

The global minima are M = {W_D⋯W_1 = W*}. With A_l = W_D⋯W_{l+1} and B_l = W_{l−1}⋯W_1 the
product moves by Σ_l A_l dW_l B_l, so with whitened inputs (loss ½‖W_D⋯W_1 − W*‖²) the
curvatures across M are the eigenvalues of

    Σ_l A_l A_lᵀ ⊗ B_lᵀ B_l.

Every term is positive semidefinite, and A_l B_{l+1} = W*. Three consequences, σ₁ ≥ … ≥ σ_r being
the singular values of W*, r its rank, S the sharpness and c² = S:

* *Flattest minimum.* With uᵀW*v = σ₁, a_l = |A_lᵀu| and b_l = |B_l v|: a_l b_{l+1} ≥ σ₁, hence
  Π_l a_l b_l ≥ σ₁^{D−1}, and S ≥ Σ_l a_l² b_l² ≥ D σ₁^{2−2/D} by the means. The balanced
  minimum attains it.
* *Bounds.* ‖A_l‖‖B_l‖ ≤ c and ‖A_l‖‖B_{l+1}‖ ≥ σ₁ give ‖A_l‖ ≤ c(c/σ₁)^{l−1} and
  ‖B_l‖ ≤ c(c/σ₁)^{D−l}. They bound W_1 = B_2 and W_D = A_{D−1}, and any other W_l that has a
  hidden layer of width r before or after it: ‖W_l‖ ≤ ‖A_{l−1}‖‖B_{l+1}‖/σ_r.
* *No bound.* Where two consecutive hidden layers are wider than r, W_l between them has a
  direction that the balanced minimum uses neither on the way in nor on the way out: its entry
  can be any t, and neither the product nor any curvature changes.

Source: the model and the questions are paper C's; all formulas are our derivation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import Problem
from stabcore.problems.linear import LinearNetwork

WHITENING_TOLERANCE = 1e-9

RANK_TOLERANCE = 1e-12

SMOOTH_ORDER = 8.0  # of the norm that stands in for the largest curvature

DIFFERENCE = 1e-6  # step of the central differences


def whitened_network(
    sizes: Sequence[int],
    singular_values: ArrayLike,
    rng: int | np.random.Generator | None = None,
) -> LinearNetwork:
    r"""Return a network with whitened inputs whose W* has given singular values.

    The inputs are √d e_1, ..., √d e_d and the targets W* x_i, so that every global minimum
    interpolates; the singular vectors of W* are random.

    Source: our derivation.

    Parameters
    ----------
    sizes : sequence of int
        Widths from the input to the output, D + 1 of them.
    singular_values : array, shape (k,)
        Of W*, k ≤ min(input, output), not negative; the others are 0.
    rng : int, numpy.random.Generator or None
        Of the singular vectors.

    Returns
    -------
    LinearNetwork

    Examples
    --------
    >>> import numpy as np
    >>> network = whitened_network([3, 4, 2], [2.0, 1.0], rng=0)
    >>> np.linalg.svd(network.target_map, compute_uv=False).round(9)
    array([2., 1.])
    """
    widths = [check.integer("sizes", size) for size in sizes]
    if len(widths) < 2:
        raise ValueError(f"sizes needs an input and an output at least, got {widths}.")
    inputs, outputs = widths[0], widths[-1]
    values = check.finite_array("singular_values", singular_values, ndim=1)
    if values.size > min(inputs, outputs) or (values < 0).any():
        raise ValueError(
            f"singular_values must be at most {min(inputs, outputs)} numbers that are not "
            f"negative, got {values.tolist()}."
        )
    generator = check.generator(rng)
    left, right = (
        np.linalg.qr(generator.normal(size=(size, size)))[0][:, : values.size]
        for size in (outputs, inputs)
    )
    samples = math.sqrt(inputs) * np.eye(inputs)
    return LinearNetwork(samples, samples @ (right * values) @ left.T, widths[1:-1])


def normal_spectra(problem: Problem, minima: ArrayLike) -> Array:
    r"""Return the eigenvalues of P^½ J Jᵀ P^½ at many minima at once.

    At a global minimum they are the curvatures κ_j of the loss across the minima; the last one is
    the sharpness. `Minimum.hessian_spectrum` is the same for one minimum.

    Source: paper A (normal and tangent space).

    Parameters
    ----------
    problem : Problem
    minima : array, shape (..., D)
        Points with φ = 0 (not checked).

    Returns
    -------
    array, shape (..., N·C)
        Ascending.

    Examples
    --------
    >>> import numpy as np
    >>> from stabcore.problems.factorised import ScalarChain
    >>> normal_spectra(ScalarChain(2), np.array([[1.0, 1.0], [2.0, 0.5]]))
    array([[2.  ],
           [4.25]])
    """
    points = check.parameters("minima", minima, problem.n_parameters)
    jacobian = np.sqrt(problem.row_probabilities)[:, None] * problem.jacobian(points)
    return np.asarray(np.linalg.eigvalsh(jacobian @ np.swapaxes(jacobian, -1, -2)))


def interpolate(network: LinearNetwork, theta: ArrayLike) -> Array:
    r"""Return the global minimum that differs from θ in one outer layer only, as little as it can.

    With no more outputs than inputs W_1 ← W_1 + A⁺(W* − A W_1), A = W_D⋯W_2; otherwise the same
    for W_D. If W* has full rank every global minimum is its own image, so the images of random
    parameters sample all of them.

    Source: our derivation.

    Parameters
    ----------
    network : LinearNetwork
        Hidden layers at least as wide as the smaller of input and output.
    theta : array, shape (..., D)

    Returns
    -------
    array, shape (..., D)

    Raises
    ------
    ValueError
        If a hidden layer is too narrow or `theta` has the wrong length.

    Examples
    --------
    >>> import numpy as np
    >>> network = LinearNetwork([[1.0]], [1.0], widths=[1])
    >>> interpolate(network, np.array([3.0, 2.0]))
    array([0.5, 2. ])
    """
    check.instance("network", network, LinearNetwork)
    layers = network.layers(check.parameters("theta", theta, network.n_parameters))
    outputs, inputs = network.shapes[-1][0], network.shapes[0][1]
    narrowest = min((rows for rows, _ in network.shapes[:-1]), default=max(outputs, inputs))
    if narrowest < min(outputs, inputs):
        raise ValueError(
            f"the narrowest hidden layer of network has width {narrowest}, less than "
            f"{min(outputs, inputs)}, the smaller of input and output; widen it."
        )
    layers = [np.array(layer) for layer in layers]
    first = outputs <= inputs
    outer = 0 if first else -1
    width = network.shapes[0][0]
    others = _product(layers[1:], width) if first else _product(layers[:-1], inputs)
    own, inverse = layers[outer], np.linalg.pinv(others)
    if first:
        layers[outer] = own + inverse @ (network.target_map - others @ own)
    else:
        layers[outer] = own + (network.target_map - own @ others) @ inverse
    return np.concatenate([layer.reshape(*layer.shape[:-2], -1) for layer in layers], axis=-1)


def flattest_sharpness(network: LinearNetwork) -> float:
    r"""Return D σ₁^{2−2/D}, the smallest sharpness of a global minimum; whitened inputs.

    Above 2 over it gradient descent converges to a global minimum from a null set of starts only.

    Source: our proof (in the module's docstring); the value is in Ghosh et al. (2502.20531).

    Parameters
    ----------
    network : LinearNetwork
        With Σ p_i x_i x_iᵀ = I and hidden layers no narrower than the rank of W*.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the inputs are not whitened, or a hidden layer is narrower than the rank of W*.

    Examples
    --------
    >>> import numpy as np
    >>> network = LinearNetwork([[1.0], [-1.0]], [8.0, -8.0], widths=[1, 1])
    >>> round(flattest_sharpness(network), 9)
    48.0
    """
    singular = _reachable_singular_values(network)
    largest = singular[0] if singular.size else 0.0
    return float(network.depth * largest ** (2 - 2 / network.depth))


def flattest_minimum(
    network: LinearNetwork, start: ArrayLike, *, max_iterations: int = 1000
) -> Array:
    r"""Search for the flattest global minimum from `start`, for inputs of any covariance.

    BFGS over θ' = `interpolate(network, θ)`, gradients by central differences, all in one batch.
    The sharpness S has kinks where curvatures cross, at which BFGS would stop; so the norm
    (Σ_j κ_j⁸)^{1/8}, which has none, is minimised first, and S from there. A local search: try
    several starts.

    Source: our derivation.

    Parameters
    ----------
    network : LinearNetwork
    start : array, shape (D,)
        Any parameters.
    max_iterations : int
        Of each of the two searches.

    Returns
    -------
    array, shape (D,)
        A global minimum. `normal_spectra` gives its sharpness.

    Examples
    --------
    >>> import numpy as np
    >>> network = LinearNetwork([[1.0]], [1.0], widths=[1])
    >>> flattest_minimum(network, np.array([3.0, 2.0])).round(4)
    array([1., 1.])
    """
    theta = check.finite_array("start", start, ndim=1)
    limit = check.integer("max_iterations", max_iterations)
    shifts = DIFFERENCE * np.concatenate([np.eye(theta.size), -np.eye(theta.size)])

    def log_norm(points: Array, order: float) -> Array:
        spectra = normal_spectra(network, interpolate(network, points))
        return np.asarray(np.log(np.linalg.norm(spectra, order, axis=-1)))

    def slope(point: Array, order: float) -> Array:
        forward, backward = np.split(log_norm(point + shifts, order), 2)
        return np.asarray((forward - backward) / (2 * DIFFERENCE))

    options = {"maxiter": limit, "gtol": 1e-8}
    for order in (SMOOTH_ORDER, math.inf):
        found = minimize(log_norm, theta, (order,), method="BFGS", jac=slope, options=options)
        theta = interpolate(network, found.x)
    return theta


def layer_bounds(network: LinearNetwork, sharpness: float) -> Array:
    r"""Return bounds on ‖W_1‖, ..., ‖W_D‖ (spectral norms) at every minimum that flat; or ∞.

    With c² = S, in the notation of the module's docstring: c(c/σ₁)^{D−2} for the outer layers,
    c²(c/σ₁)^{D−3}/σ_r for an inner one next to a layer of width r = rank W*. The other inner
    layers are unbounded: at a step size for which some minimum is stable, the stable minima are
    then an unbounded set. For W* = 0 two layers are bounded by c; with more of them none is
    bounded, since two layers that are 0 leave the others free.

    Source: our derivation (proof in the module's docstring).

    Parameters
    ----------
    network : LinearNetwork
        With Σ p_i x_i x_iᵀ = I.
    sharpness : float
        Largest sharpness allowed, such as 2/η.

    Returns
    -------
    array, shape (D,)

    Raises
    ------
    ValueError
        If the inputs are not whitened, a hidden layer is narrower than the rank of W*, or no
        minimum is that flat.

    Examples
    --------
    >>> import numpy as np
    >>> layer_bounds(LinearNetwork([[1.0]], [1.0], widths=[1, 1]), 4.0).round(9)
    array([4., 4., 4.])
    >>> layer_bounds(LinearNetwork([[1.0]], [1.0], widths=[2, 2]), 4.0).round(9)
    array([ 4., inf,  4.])
    """
    largest = check.real("sharpness", sharpness, above=0.0)
    flattest = flattest_sharpness(network)
    if largest < flattest * (1 - RANK_TOLERANCE):
        raise ValueError(
            f"sharpness must be at least that of the flattest minimum, {flattest:.6g}, got "
            f"{largest:.6g}; no minimum is flatter."
        )
    singular = _reachable_singular_values(network)
    if network.depth == 1:
        return np.append(singular, 0.0)[:1]
    c = math.sqrt(largest)
    if singular.size == 0:
        return np.full(network.depth, c if network.depth == 2 else math.inf)
    ratio = c / singular[0]
    inner = c**2 * ratio ** (network.depth - 3) / singular[-1]
    narrow = [min(shape) == singular.size for shape in network.shapes]
    bounds = np.where(narrow, inner, math.inf)
    bounds[[0, -1]] = c * ratio ** (network.depth - 2)
    return bounds


def _product(layers: list[Array], size: int) -> Array:
    """Return the product of the layers, the first one rightmost, from inputs of `size`."""
    product = np.eye(size)
    for layer in layers:
        product = layer @ product
    return product


def _reachable_singular_values(network: LinearNetwork) -> Array:
    """Return the singular values of W* that are not 0; refuse a network too narrow for them."""
    _require_whitened(network)
    singular = np.linalg.svd(network.target_map, compute_uv=False)
    singular = singular[singular > RANK_TOLERANCE * singular[0]]
    narrowest = min((rows for rows, _ in network.shapes[:-1]), default=singular.size)
    if narrowest < singular.size:
        raise ValueError(
            f"network has a hidden layer of width {narrowest}, less than the rank {singular.size} "
            "of the least-squares solution, so that no minimum reaches it; widen the layer."
        )
    return np.asarray(singular)


def _require_whitened(network: LinearNetwork) -> None:
    """Refuse inputs whose second moment is not the identity."""
    check.instance("network", network, LinearNetwork)
    moment = network.inputs.T @ (network.probabilities[:, None] * network.inputs)
    error = float(np.abs(moment - np.eye(len(moment))).max())
    if error > WHITENING_TOLERANCE:
        raise ValueError(
            f"inputs must be whitened (Σ p_i x_i x_iᵀ = I), they are off by {error:.3g}; multiply "
            "them by the inverse square root of that matrix, or use flattest_minimum."
        )
