import numpy as np
import pytest

from stabcore import Minimum, gd_exponent, mean_square_edge, sgd_exponent

J = np.array(
    [[[1, 2, 0, 1, 0, 0], [0, 1, 1, 0, 2, 0]], [[1, 0, 1, 0, 0, 2], [0, 1, 0, 2, 1, 1]]],
    dtype=float,
)
INPUTS = np.array([[1.0, 2.0], [-1.0, 0.5]])
THETA = np.array([0.5, -0.3, 0.2, 0.4, 0.1, -0.2, 1.0, -0.5, 0.3, 0.8, 0.0, 0.1])


def network(theta):
    """A 2-2-2 tanh network on two inputs: outputs of shape (2, 2)."""
    first, bias = theta[:4].reshape(2, 2), theta[4:6]
    second, last = theta[6:10].reshape(2, 2), theta[10:]
    return np.tanh(INPUTS @ first.T + bias) @ second.T + last


def network_jacobian(theta):
    step = 1e-6
    columns = [(network(theta + e) - network(theta - e)) / (2 * step) for e in step * np.eye(12)]
    return np.stack(columns, axis=-1)


def softmax(outputs):
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


LABELS = softmax(network(THETA))

# The mean losses, written as a framework does.
WRITTEN = {
    "half_square": lambda f: 0.5 * ((f - network(THETA)) ** 2).sum(axis=1).mean(),
    "mean_square": lambda f: ((f - network(THETA)) ** 2).mean(),
    "sum_square": lambda f: ((f - network(THETA)) ** 2).sum(axis=1).mean(),
    "cross_entropy": lambda f: -(LABELS * np.log(softmax(f))).sum(axis=1).mean(),
}


@pytest.mark.parametrize("loss", WRITTEN)
def test_the_sharpness_is_that_of_the_loss_as_it_is_written(loss):
    labels = {"labels": LABELS} if loss == "cross_entropy" else {}
    minimum = Minimum.from_jacobian(network_jacobian(THETA), loss=loss, **labels)
    step, size = 1e-4, THETA.size

    def value(*nudges):
        return WRITTEN[loss](network(THETA + sum(nudges)))

    nudges = step * np.eye(size)
    hessian = np.array(
        [
            [value(a, b) - value(a, -b) - value(-a, b) + value(-a, -b) for b in nudges]
            for a in nudges
        ]
    ) / (4 * step**2)
    assert minimum.sharpness == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-5)


def test_known_values_of_a_tanh_network():
    minimum = Minimum.from_jacobian(network_jacobian(THETA))
    assert 2 / minimum.sharpness == pytest.approx(0.4616912868, abs=1e-8)
    assert mean_square_edge(minimum) == pytest.approx(0.2540452286, abs=1e-8)
    assert gd_exponent(minimum, 0.3).value == pytest.approx(-0.2665272116, abs=1e-8)
    entropy = Minimum.from_jacobian(network_jacobian(THETA), loss="cross_entropy", labels=LABELS)
    assert entropy.spectrum == pytest.approx([1.05583259, 2.40363262], abs=1e-7)
    assert entropy.n_outputs == 1  # the curvature of two classes has rank 1
    assert 2 / entropy.sharpness == pytest.approx(1.6641478283, abs=1e-7)
    assert mean_square_edge(entropy) == pytest.approx(1.1452355800, abs=1e-7)


def test_known_values_of_a_preconditioner():
    rows, diagonal = [[1, 2, 0, 1, 0, 0], [1, 0, 1, 0, 0, 2]], [0.5, 1, 2, 1, 0.25, 4]
    minimum = Minimum.from_jacobian(rows, preconditioner=diagonal)
    assert minimum.kernel == pytest.approx(np.array([[7, 2], [2, 3.5]]), rel=1e-14)
    assert 2 / minimum.sharpness == pytest.approx(0.505846545720, abs=1e-11)
    assert sgd_exponent(minimum, 0.1).value == pytest.approx(-0.144562672195, abs=1e-10)
    assert gd_exponent(minimum, 0.1).value == pytest.approx(-0.138829031614, abs=1e-11)
    full = Minimum.from_jacobian(rows, preconditioner=np.diag(diagonal))
    assert full.kernel == pytest.approx(minimum.kernel, rel=1e-14)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    turned = rotation @ np.diag(diagonal) @ rotation.T
    naive = np.array(rows) @ np.linalg.solve((turned + turned.T) / 2, np.array(rows).T)
    found = Minimum.from_jacobian(rows, preconditioner=(turned + turned.T) / 2)
    assert found.kernel == pytest.approx(naive, rel=1e-12)


def test_curvatures_of_ones_own():
    curvatures = np.array([[[2.0, 1.0], [1.0, 3.0]], [[1.0, 0.0], [0.0, 0.0]]])
    minimum = Minimum.from_jacobian(J, loss=curvatures)
    hessian = np.einsum("ica,icd,idb->ab", J, curvatures, J) / 2
    known = np.linalg.eigvalsh(hessian)
    assert minimum.hessian_spectrum == pytest.approx(known[-minimum.rank :], rel=1e-12)
    named = Minimum.from_jacobian(J, loss=np.stack([np.eye(2)] * 2) * 2)
    assert named.sharpness == pytest.approx(Minimum.from_jacobian(J, loss="sum_square").sharpness)


def test_one_output_per_sample_has_both_shapes():
    flat, deep = Minimum.from_jacobian(J[:, 0]), Minimum.from_jacobian(J[:, :1])
    assert (flat.kernel == deep.kernel).all()
    same = Minimum.from_jacobian(J[:, 0], residuals=[0.0, 1e-12])
    assert (same.kernel == flat.kernel).all()


def test_how_far_from_interpolation():
    """F(θ) = Jθ has its nearest interpolating parameter exactly a Gauss-Newton step away."""
    theta = np.array([0.1, -0.2, 0.0, 0.3, 0.1, 0.0])
    rows = J.reshape(4, 6)
    distance = np.linalg.norm(rows.T @ np.linalg.solve(rows @ rows.T, rows @ theta))
    for loss in ("half_square", "mean_square"):
        with pytest.raises(ValueError, match=rf"residuals are not 0.*about {distance:.3g} away"):
            Minimum.from_jacobian(J, residuals=J @ theta, loss=loss)
    assert Minimum.from_jacobian(J, residuals=1e-3 * J @ theta, tolerance=1e-2).rank == 4


class Tensor:
    """As much of a PyTorch tensor as is looked at."""

    def __init__(self, array, dtype):
        self.array, self.dtype = array, dtype

    def detach(self):
        return self

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_tensors_of_frameworks_are_read():
    minimum = Minimum.from_jacobian(Tensor(J, "torch.float64"))
    assert (minimum.kernel == Minimum.from_jacobian(J).kernel).all()


@pytest.mark.parametrize(
    ("jacobian", "options", "message"),
    [
        (J.astype(np.float32), {}, r"jacobian is float32.*double precision"),
        (Tensor(J, "torch.bfloat16"), {}, "jacobian is bfloat16"),
        (J, {"residuals": np.zeros(2)}, r"residuals must have shape \(2, 2\)"),
        (J, {"residuals": np.zeros((2, 2), np.float32)}, "residuals is float32"),
        (J, {"loss": "mse"}, "loss must be one of 'half_square', 'mean_square'"),
        (J, {"loss": np.ones((2, 3, 3))}, r"loss must be one of .* have shape \(2, 2, 2\)"),
        (J, {"loss": [[[1, 2], [0, 1]]] * 2}, "loss must hold symmetric matrices"),
        (J, {"loss": [[[1, 0], [0, -1]]] * 2}, "loss must be convex"),
        (J, {"loss": np.zeros((2, 2, 2))}, "loss has no curvature"),
        (J, {"loss": "cross_entropy"}, "needs labels="),
        (J, {"labels": LABELS}, "labels belong to loss='cross_entropy'"),
        (J, {"loss": "cross_entropy", "labels": np.eye(2)}, "hard labels .* smoothed labels"),
        (J, {"loss": "cross_entropy", "labels": np.full((2, 2), 0.4)}, "sum to 1"),
        (J[:, :1], {"loss": "cross_entropy", "labels": np.ones((2, 1))}, "two classes or more"),
        (J, {"preconditioner": np.ones(3)}, r"preconditioner must have shape \(6,\)"),
        (J, {"preconditioner": np.zeros(6)}, "preconditioner must be positive"),
        (J, {"preconditioner": np.triu(np.ones((6, 6)))}, "preconditioner must be symmetric"),
        (J, {"preconditioner": np.ones((6, 6))}, "preconditioner must be positive definite"),
        (J, {"tolerance": 0.0, "residuals": np.zeros((2, 2))}, "tolerance must be"),
    ],
)
def test_what_is_refused(jacobian, options, message):
    with pytest.raises(ValueError, match=message):
        Minimum.from_jacobian(jacobian, **options)
