import jax
import numpy as np
import pytest
from networks_data import digits, smoothed

from stabcore import SGD, LinearRegression, stochastic_gradient_descent
from stabcore.networks import Adam, mlp, train

X, Y = digits(6)
MODEL = mlp(64, (8,))


def linear(params, x):
    return x @ params["w"]


METHODS = [
    SGD(batch_size=None),
    SGD(batch_size=None, momentum=0.6),
    SGD(batch_size=None, momentum=0.6, nesterov=True),
    SGD(batch_size=None, momentum=0.6, weight_decay=0.1),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_full_batches_of_a_linear_model_are_those_in_plain_coordinates(method):
    rng = np.random.default_rng(0)
    x, y, starts = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=(5, 3))
    plain = stochastic_gradient_descent(LinearRegression(x, y), starts, 0.1, method, 30)
    runs = train(linear, {"w": starts}, x, y, 0.1, method, 30)
    assert np.asarray(runs.params["w"]) == pytest.approx(plain.ends, rel=1e-12)


@pytest.mark.parametrize(
    "method",
    [
        SGD(),
        SGD(batch_size=2),
        SGD(batch_size=2, replacement=True),
        SGD(batch_size=2, reshuffle=True),
        SGD(probabilities=(0.1, 0.2, 0.3, 0.4)),
    ],
    ids=str,
)
def test_batches_have_the_law_of_those_in_plain_coordinates(method):
    """Mean and spread of the parameters after ten steps, over 4,000 runs of each."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 2)), rng.normal(size=4)
    starts = np.zeros((4000, 2))
    plain = stochastic_gradient_descent(LinearRegression(x, y), starts, 0.1, method, 10, rng=1)
    runs = train(linear, {"w": starts}, x, y, 0.1, method, 10, rng=2)
    one, two = np.asarray(runs.params["w"]), plain.ends
    for a, b in ((one, two), (one**2, two**2), (one.prod(axis=1), two.prod(axis=1))):
        error = np.hypot(a.std(axis=0), b.std(axis=0)) / np.sqrt(4000)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4 * error).all()


def test_the_same_seed_gives_the_same_result_and_every_run_its_own():
    start = MODEL.initial(0)
    same = {name: np.stack([leaf] * 3) for name, leaf in start.items()}
    first, second = (train(MODEL.apply, same, X, Y, 0.1, SGD(), 20, rng=5) for _ in range(2))
    assert all((first.params[k] == second.params[k]).all() for k in start)
    weights = np.asarray(first.params["0_weight"])
    assert not (weights[0] == weights[1]).all()


def test_step_sizes_of_their_own():
    start = MODEL.initial(0, runs=2)
    method = SGD(batch_size=None)
    both = train(MODEL.apply, start, X, Y, [0.1, 0.3], method, 20)
    for index, eta in enumerate((0.1, 0.3)):
        alone = {name: leaf[index : index + 1] for name, leaf in start.items()}
        single = train(MODEL.apply, alone, X, Y, eta, method, 20)
        assert np.asarray(both.run(index)["0_weight"]) == pytest.approx(
            np.asarray(single.run(0)["0_weight"]), rel=1e-12
        )


RESUMED = [
    SGD(momentum=0.9),
    SGD(momentum=0.9, nesterov=True),
    SGD(batch_size=2, reshuffle=True),
    SGD(batch_size=2, replacement=True),
    Adam(batch_size=2, reshuffle=True),
]


@pytest.mark.parametrize("method", RESUMED, ids=str)
def test_training_can_be_resumed_in_the_middle_of_an_epoch(method):
    start = MODEL.initial(0, runs=2)
    whole = train(MODEL.apply, start, X, Y, 0.05, method, 12, rng=np.random.default_rng(3))
    rng = np.random.default_rng(3)
    first = train(MODEL.apply, start, X, Y, 0.05, method, 5, rng=rng)
    options = {"state": first.state, "rng": rng}
    second = train(MODEL.apply, first.params, X, Y, 0.05, method, 7, **options)
    assert second.times.tolist() == [5, 12]
    assert np.asarray(second.params["0_weight"]) == pytest.approx(
        np.asarray(whole.params["0_weight"]), rel=1e-12
    )


def test_a_run_that_diverged_before_says_so_when_it_is_resumed():
    start = {"w": np.ones((2, 1))}
    first = train(linear, start, [[1.0]], [0.0], [0.5, 1e200], SGD(), 3)
    second = train(linear, first.params, [[1.0]], [0.0], [0.5, 1e200], SGD(), 3, state=first.state)
    assert second.diverged_at.tolist() == [-1, 2]


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_as_it_is_written(decay):
    rng = np.random.default_rng(0)
    x, y, theta = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)
    method = Adam(batch_size=None, beta1=0.7, beta2=0.9, epsilon=1e-3, weight_decay=decay)
    runs = train(linear, {"w": theta[None]}, x, y, 0.1, method, 20)
    m = s = np.zeros(3)
    for t in range(1, 21):
        g = x.T @ (x @ theta - y) / 4 + decay * theta
        m, s = 0.7 * m + 0.3 * g, 0.9 * s + 0.1 * g * g
        theta = theta - 0.1 * m / (1 - 0.7**t) / (np.sqrt(s / (1 - 0.9**t)) + 1e-3)
    assert np.asarray(runs.params["w"])[0] == pytest.approx(theta, rel=1e-12)


def test_adam_in_single_precision_stays_there():
    params = {"w": np.ones((2, 3), np.float32)}
    runs = train(linear, params, np.ones((2, 3)), np.ones(2), 0.1, Adam(), 3, rng=0)
    assert runs.params["w"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta1": 1.0}, "beta1 must be below 1"),
        ({"beta2": -0.1}, "beta2 must be"),
        ({"epsilon": 0.0}, "epsilon must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"replacement": True, "reshuffle": True}, "reshuffle=True uses every sample once"),
    ],
)
def test_what_adam_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        Adam(**change)


def test_the_state_of_another_training_is_refused():
    first = train(MODEL.apply, MODEL.initial(0, runs=2), X, Y, 0.1, SGD(), 2, rng=0)
    arguments = MODEL.apply, MODEL.initial(0, runs=3), X, Y, 0.1
    with pytest.raises(ValueError, match="state is that of other runs"):
        train(*arguments, SGD(), 2, state=first.state)
    with pytest.raises(ValueError, match="another method"):
        train(MODEL.apply, first.params, X, Y, 0.1, Adam(), 2, state=first.state)
    with pytest.raises(TypeError, match=r"pass its \.state"):
        train(*arguments, SGD(), 2, state=first)


def test_progress_changes_nothing_but_the_screen(capfd):
    start = MODEL.initial(0, runs=2)
    method = SGD(batch_size=2, reshuffle=True)
    quiet, shown = (
        train(MODEL.apply, start, X, Y, 0.1, method, 250, rng=1, progress=progress)
        for progress in (False, True)
    )
    assert (np.asarray(quiet.params["0_weight"]) == np.asarray(shown.params["0_weight"])).all()
    assert "250/250" in capfd.readouterr().err


@pytest.mark.parametrize("loss", ["half_square", "mean_square", "sum_square", "cross_entropy"])
def test_losses_as_they_are_written(loss):
    x, onehot = digits(6, classes=3)
    labels, model = smoothed(onehot), mlp(64, (5,), 3)
    start = model.initial(0, runs=1)
    runs = train(model.apply, start, x, labels, 0.1, SGD(batch_size=None), 1, loss=loss)
    with jax.enable_x64(True):

        def written(params):
            f = model.apply(params, x)
            if loss == "cross_entropy":
                return -(labels * jax.nn.log_softmax(f, axis=1)).sum(axis=1).mean()
            square = ((f - labels) ** 2).sum(axis=1).mean()
            return square * {"half_square": 0.5, "mean_square": 1 / 3, "sum_square": 1.0}[loss]

        one = {name: leaf[0] for name, leaf in start.items()}
        value, gradient = jax.value_and_grad(written)(one)
    assert runs.losses[0, 0] == pytest.approx(float(value), rel=1e-12)
    for name, leaf in one.items():
        expected = leaf - 0.1 * np.asarray(gradient[name])
        assert np.asarray(runs.params[name][0]) == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_records_and_their_residuals():
    runs = train(
        MODEL.apply, MODEL.initial(0, runs=2), X, Y, 0.1, SGD(), 25, rng=0, record_every=10
    )
    assert runs.times.tolist() == [0, 10, 20, 25]
    assert runs.log_residuals.shape == runs.losses.shape == (4, 2)
    assert np.exp(2 * runs.log_residuals) / 12 == pytest.approx(runs.losses, rel=1e-10)
    with jax.enable_x64(True):
        outputs = np.asarray(MODEL.apply(runs.run(1), X))
    assert runs.log_residuals[-1, 1] == pytest.approx(np.log(np.linalg.norm(outputs - Y)))


def test_a_diverging_run_says_when():
    runs = train(linear, {"w": np.ones((2, 1))}, [[1.0]], [0.0], [0.5, 1e200], SGD(), 5)
    assert runs.diverged_at.tolist() == [-1, 2]  # 1e200, then 1e400
    assert str(runs) == "2 runs of 5 steps, 1 diverged, the first at step 2"


def test_the_precision_is_that_of_the_parameters():
    for kind in (np.float32, np.float64):
        params = {"w": np.ones((2, 3), kind)}
        runs = train(linear, params, np.ones((2, 3)), np.ones(2), 0.1, SGD(), 3, rng=0)
        assert runs.params["w"].dtype == kind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {}}, "first axis is that of the runs"),
        ({"params": {"w": np.ones((2, 3)), "b": np.ones(3)}}, r"arrays of \[2, 3\] runs"),
        ({"params": {"w": np.ones((2, 3), int)}}, "floating-point arrays"),
        ({"step_size": [0.1, 0.1, 0.1]}, "one for each of the 2 runs"),
        ({"step_size": -0.1}, "step_size must be positive"),
        ({"y": np.ones(3)}, "x has 2 samples but y has 3"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"loss": "mse"}, "loss must be one of"),
        ({"loss": "cross_entropy"}, "labels must have"),
    ],
)
def test_what_is_refused(change, message):
    arguments = {
        "apply": linear,
        "params": {"w": np.ones((2, 3))},
        "x": np.ones((2, 3)),
        "y": np.ones(2),
        "step_size": 0.1,
        "method": SGD(),
        "steps": 3,
    } | change
    with pytest.raises(ValueError, match=message):
        train(**arguments)
