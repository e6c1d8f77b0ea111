import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import kstest, norm

from stabcore import SGD, FiniteSignal, OneNeuron, gradient_descent, saddle_exponents
from stabcore._random import stream_states
from stabcore.problems import LabelFlips, NeuronFate, NormalSignal, RegressionSignal, Signal
from stabcore.saddles import Phase, saddle_grid
from stabcore.simulation import neuron_runs
from stabcore.simulation.neuron import _next_normal, _ziggurat

IA, IB, II, III, IV, _ = Phase

FATES = list(NeuronFate)
ONE = SGD()


def one_step(data, start, replicas, method=ONE, rng=0):
    """Return the z of the first step, read off u + w (and checked against u − w)."""
    eta = 0.5
    runs = neuron_runs(data, np.full(replicas, start), 0.0, eta, method, 1, rng=rng)
    plus = np.exp(runs.log_plus - math.log(start)) - 1
    return plus / eta  # for a small start, and z > −2


def test_the_sampler_of_normal_numbers():
    from numba import njit

    @njit
    def fill(state, edges, heights, out):
        for k in range(out.size):
            out[k] = _next_normal(state, edges, heights)

    numbers = np.empty(20_000_000)  # 5,000 of them in the tails, which are drawn by themselves
    fill(stream_states(np.random.default_rng(0), 1)[0], *_ziggurat(), numbers)
    assert kstest(numbers[:1_000_000], "norm").pvalue > 1e-4
    for level in (3.5, 3.6541528853610088, 4.0):
        share = 2 * norm.sf(level)
        error = math.sqrt(share / numbers.size)
        for sign in (-1, 1):
            assert abs((sign * numbers > level).mean() - share / 2) < 5 * error
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 5e-3


def test_gradient_descent_in_plain_coordinates_is_the_same():
    """The whole data set as its batch: no randomness is left."""
    x, y = np.random.default_rng(0).normal(size=(2, 5))
    neuron, starts = OneNeuron(x, y), np.array([[0.3, -0.5], [1.0, 0.2], [0.1, 0.1]])
    ends = gradient_descent(neuron, starts, 0.2, 7).ends
    runs = neuron_runs(neuron, *starts.T, 0.2, SGD(batch_size=5), 7)
    u, w = ends.T
    assert np.exp(runs.log_plus) == pytest.approx(np.abs(u + w), rel=1e-12)
    assert np.exp(runs.log_minus) == pytest.approx(np.abs(u - w), rel=1e-12)
    assert (runs.steps == 7).all()


def naive_run(x, y, u, w, eta, decay, steps):
    for _ in range(steps):
        m = x * (u * w * x - y)
        u, w = u - eta * (m * w + decay * u), w - eta * (m * u + decay * w)
    return u, w


def test_weight_decay():
    for decay in (0.0, 0.1, 0.7):
        runs = neuron_runs(OneNeuron([1.5], [0.8]), 0.4, -0.3, 0.3, SGD(weight_decay=decay), 5)
        u, w = naive_run(1.5, 0.8, 0.4, -0.3, 0.3, decay, 5)
        assert math.exp(runs.log_plus) == pytest.approx(abs(u + w), rel=1e-12)
        assert math.exp(runs.log_minus) == pytest.approx(abs(u - w), rel=1e-12)


def test_samples_are_drawn_with_their_probabilities():
    count = 100_000
    values, weights = np.array([1.0, 0.5, -1.0]), np.array([0.2, 0.5, 0.3])
    z = one_step(FiniteSignal(values, weights), 1e-100, count)
    for value, weight in zip(values, weights, strict=True):
        share = (np.abs(z - value) < 1e-12).mean()
        assert abs(share - weight) < 4.5 * math.sqrt(weight * (1 - weight) / count)


@pytest.mark.parametrize(
    ("law", "batch_size", "replacement"),
    [
        (FiniteSignal(np.linspace(-1, 1.5, 20)), 3, None),  # listed
        (FiniteSignal(np.linspace(-1, 1.5, 40)), 20, False),  # drawn, a subset
        (FiniteSignal(np.linspace(-1, 1.5, 40)), 20, True),  # drawn, with repetitions
        (LabelFlips(0.3), 7, None),
        (NormalSignal(0.3, 0.2), 2, None),
        (RegressionSignal(0.2, 0.1), 1, None),
        (RegressionSignal(0.2, 0.1), 5, None),
        (RegressionSignal(0.2, 0.1).batched(SGD(batch_size=2)), 3, None),
        (LabelFlips(0.3).batched(SGD(batch_size=2)), 3, None),
    ],
)
def test_batches_have_the_moments_of_their_law(law, batch_size, replacement):
    count = 100_000
    method = SGD(batch_size=batch_size, replacement=replacement)
    z = one_step(law, 1e-100, count, method)
    n = law.values.size if isinstance(law, FiniteSignal) else 0
    variance = (law.second_moment - law.mean**2) / batch_size
    if n and not isinstance(law, LabelFlips) and not replacement:
        variance *= (n - batch_size) / (n - 1)
    assert abs(z.mean() - law.mean) < 4.5 * math.sqrt(variance / count)
    spread = ((z - law.mean) ** 2).std() / math.sqrt(count)
    assert abs(((z - law.mean) ** 2).mean() - variance) < 4.5 * spread


def test_gaussian_inputs_matter_away_from_the_saddle():
    """From (u, w) = (t, t): a' = a (1 + ηz − ηs t²), with s = x² and z = mx² without noise."""
    count, eta, t, slope = 50_000, 0.01, 2.0, 0.5
    runs = neuron_runs(RegressionSignal(slope, 0.0), np.full(count, t), t, eta, SGD(), 1, rng=0)
    s = (1 - np.exp(runs.log_plus) / (2 * t)) / (eta * (t**2 - slope))
    assert abs(s.mean() - 1) < 4.5 * math.sqrt(2 / count)
    assert (runs.log_minus == -math.inf).all()


@pytest.mark.parametrize(
    ("law", "eta", "batch_size", "decay"),
    [
        (LabelFlips(0.4), 0.6, 1, 0.0),
        (LabelFlips(0.2), 0.9, 2, 0.1),
        (FiniteSignal([2.5, -0.99, 0.3]), 1.0, 1, 0.0),
        (RegressionSignal(0.3, 1.0), 0.8, 1, 0.0),
        (RegressionSignal(0.3, 1.0), 0.8, 3, 0.2),
        (NormalSignal(0.3, 1.0), 0.8, 1, 0.0),
    ],
)
def test_growth_near_the_saddle_is_the_exponent(law, eta, batch_size, decay):
    replicas, steps = 4_000, 100
    runs = neuron_runs(
        law,
        np.full(replicas, 1e-60),
        0.0,
        eta,
        SGD(batch_size=batch_size, weight_decay=decay),
        steps,
        rng=1,
    )
    exponents = saddle_exponents(law, eta, SGD(batch_size=batch_size, weight_decay=decay))
    for logs, exponent in zip((runs.log_plus, runs.log_minus), exponents, strict=True):
        rates = (logs - math.log(1e-60)) / steps
        error = rates.std(ddof=1) / math.sqrt(replicas)
        assert abs(rates.mean() - exponent.value) < 4.5 * error


def test_fates_of_label_flips_are_the_phases():
    flips = np.array([0.05, 0.2, 0.4, 0.5, 0.8])[:, None, None]
    steps = np.array([0.3, 0.8])[:, None]
    law = LabelFlips(flips)
    runs = neuron_runs(law, np.full(20, 0.3), 0.1, steps, SGD(), 20_000, rng=0)
    grid = saddle_grid(LabelFlips(flips[..., 0]), steps[:, 0])
    assert runs.fate.shape == (5, 2, 20)
    decided = grid.distance > 0.1
    attracted = (grid.phases == III) & decided
    learns = np.isin(grid.phases, [IA, IB]) & decided
    assert attracted.sum() >= 2
    assert learns.sum() >= 5
    assert (runs.share(NeuronFate.ORIGIN)[attracted] == 1).all()
    # Λ₊ > 0 is small where labels are flipped often, and uw then small from time to time.
    correct, undecided = (runs.share(f)[learns] for f in (NeuronFate.CORRECT, NeuronFate.UNDECIDED))
    assert (correct + undecided == 1).all()
    assert (correct >= 0.8).all()
    assert (correct[grid.plus[learns] > 0.2] == 1).all()
    assert float(runs.share(NeuronFate.ORIGIN, axis=None)) < 1


def test_the_mirror_image_exchanges_the_coordinates():
    """Labels −y: u − w plays the part of u + w."""
    x, y = np.random.default_rng(3).normal(size=(2, 6))
    first, second = (
        neuron_runs(FiniteSignal.from_data(x, s * y), [0.3, -0.2], s * 0.1, 0.2, SGD(), 500, rng=0)
        for s in (1, -1)
    )
    assert (first.fate == second.fate).all()
    assert first.log_plus == pytest.approx(second.log_minus, rel=1e-9)


def test_incorrect_learning():
    """Phase II: close to the saddle u − w leaves although E[xy] > 0."""
    law = FiniteSignal([2.5, -0.99])
    runs = neuron_runs(law, np.full(50, 1e-100), 0.0, 1.0, SGD(), 20_000, rng=0, radius=1e-3)
    assert (runs.fate == NeuronFate.INCORRECT).mean() > 0.9
    assert (runs.log_minus > math.log(1e-3)).all()
    mirrored = neuron_runs(
        FiniteSignal([-2.5, 0.99]), np.full(50, 1e-100), 0.0, 1.0, SGD(), 20_000, rng=0, radius=1e-3
    )
    assert (mirrored.fate == runs.fate).all()
    # Once u + w is 0, uw = −b²/4 ≤ 0 for good: right for y = −x. For y = x and u = −w the solution
    # is out of reach, and gradient descent falls into the saddle.
    runs = neuron_runs(FiniteSignal([-1.0]), 0.1, -0.1, 0.3, SGD(), 200)
    assert runs.fate == NeuronFate.CORRECT
    runs = neuron_runs(FiniteSignal([1.0]), 0.1, -0.1, 0.3, SGD(), 5_000)
    assert runs.fate == NeuronFate.ORIGIN


def test_fates_at_the_edges():
    runs = neuron_runs(
        FiniteSignal([1.0]), [0.0, 1e200, 0.5, 1e-251], [0, 0, 0.5, 0], 0.5, SGD(), 100
    )
    assert [FATES[k].name for k in runs.fate] == ["ORIGIN", "DIVERGENT", "CORRECT", "ORIGIN"]
    assert runs.steps.tolist() == [0, 0, 100, 0]
    assert runs.log_plus[0] == -math.inf
    assert (
        neuron_runs(FiniteSignal([1.0]), 10.0, 10.0, 5.0, SGD(), 1_000).fate == NeuronFate.DIVERGENT
    )
    # A factor that vanishes: η = 1/|xy|, in one step.
    gone = neuron_runs(FiniteSignal([1.0]), 1e-10, 0.0, 1.0, SGD(), 1)
    assert gone.log_minus < math.log(1e-25)


NEARBY = {IA: "CORRECT", IB: "CORRECT", II: "INCORRECT", III: "ORIGIN", IV: "DIVERGENT"}


@pytest.mark.parametrize(
    ("family", "batch_size"),
    [
        (lambda shape: LabelFlips(np.linspace(0, 1, 13).reshape(shape)), 1),
        (lambda shape: LabelFlips(np.linspace(0, 1, 13).reshape(shape)), 3),
        (lambda shape: RegressionSignal(1.0, np.geomspace(0.3, 8, 13).reshape(shape)), 1),
        (lambda shape: NormalSignal(np.linspace(0, 1, 13).reshape(shape), 1.0), 2),
        (
            lambda shape: FiniteSignal(
                [2.5, -0.99] - np.linspace(0, 1, 13).reshape(*shape, 1) * [0.0, 1.0]
            ),
            1,
        ),
    ],
)
def test_fates_near_the_saddle_are_the_phases(family, batch_size):
    """Where |Λ| is large enough for 400 nats of travel to tell: all runs but a few."""
    steps, replicas = np.linspace(0.1, 3, 12), 40
    grid = saddle_grid(family((13, 1)), steps, SGD(batch_size=batch_size))
    runs = neuron_runs(
        family((13, 1, 1)),
        np.full(replicas, 1e-200),
        0.0,
        steps[:, None],
        SGD(batch_size=batch_size),
        20_000,
        rng=0,
        radius=1e-3,
    )
    clear = (grid.distance > 0.1) & np.isfinite(grid.distance) & (grid.correlation != 0)
    assert clear.sum() > 30
    seen = set()
    for code, name in NEARBY.items():
        cells = clear & (grid.phases == code)
        if cells.any():
            seen.add(code)
            assert runs.share(NeuronFate[name])[cells].min() >= 0.8
            assert runs.share(NeuronFate[name])[cells].mean() > 0.985
    assert len(seen) >= 3


def test_clean_labels_leave_the_smaller_coordinate_alone():
    """With labels that can be fitted SGD stops at uw = 1, u − w ≠ 0: it has learnt all the same."""
    runs = neuron_runs(OneNeuron([1.0, 0.5], [1.0, 0.5]), [0.9, 0.2], 0.1, 0.2, SGD(), 2_000, rng=0)
    assert (runs.fate == NeuronFate.CORRECT).all()
    assert (runs.log_minus > -10).all()
    u_w = (np.exp(2 * runs.log_plus) - np.exp(2 * runs.log_minus)) / 4
    assert u_w == pytest.approx(1)


@pytest.mark.parametrize("law", [LabelFlips(0.3), RegressionSignal(1.0, 0.5)])
def test_same_seed_same_runs_on_any_number_of_cores(monkeypatch, law):
    results = []
    for workers in (1, 2, 9):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, w=workers: range(w), raising=False)
        results.append(neuron_runs(law, np.linspace(0.1, 0.5, 50), 0.1, 0.2, SGD(), 40, rng=3))
    for other in results[1:]:
        for name in ("log_plus", "log_minus", "fate", "steps", "turned"):
            assert np.array_equal(getattr(other, name), getattr(results[0], name))
    assert (
        neuron_runs(law, 0.3, 0.1, 0.2, SGD(), 40, rng=4).log_plus != results[0].log_plus[0]
    ).all()


def test_families_are_single_laws_side_by_side():
    """Each member sees its own data: three certain signals, told apart by one step."""
    values = np.array([0.5, 1.0, 2.0])
    runs = neuron_runs(FiniteSignal(values[:, None, None]), np.full(4, 1e-50), 0.0, 0.25, SGD(), 1)
    assert runs.fate.shape == (3, 4)
    growth = np.exp(runs.log_plus - math.log(1e-50))
    assert growth == pytest.approx(np.repeat(1 + 0.25 * values, 4).reshape(3, 4))
    runs = neuron_runs(NormalSignal(values[:, None], 1e-9), np.full(4, 1e-50), 0.0, 0.25, SGD(), 1)
    growth = np.exp(runs.log_plus - math.log(1e-50))
    assert growth == pytest.approx(np.repeat(1 + 0.25 * values, 4).reshape(3, 4), rel=1e-6)


def test_starts_are_not_changed():
    u = np.array([0.1, 0.2])
    neuron_runs(LabelFlips(0.3), u, 0.1, 0.2, SGD(), 5, rng=0)
    assert u.tolist() == [0.1, 0.2]


def test_bad_arguments():
    law = LabelFlips(0.3)
    cases = [
        (lambda: neuron_runs([1.0], 0.1, 0.1, 0.1, SGD(), 1), TypeError, "data"),
        (lambda: neuron_runs(law, math.nan, 0.1, 0.1, SGD(), 1), ValueError, "u has"),
        (lambda: neuron_runs(law, 0.1, 0.1, 0.0, SGD(), 1), ValueError, "step_size"),
        (lambda: neuron_runs(law, 0.1, 0.1, 0.1, SGD(), 0), ValueError, "steps"),
        (lambda: neuron_runs(law, [0.1, 0.2], [0.1] * 3, 0.1, SGD(), 1), ValueError, "broadcast"),
        (lambda: neuron_runs(law, 0.1, 0.1, 0.1, SGD(batch_size=0), 1), ValueError, "batch_size"),
        (lambda: neuron_runs(law, 0.1, 0.1, 0.1, SGD(), 1, floor=0.0), ValueError, "floor"),
        (lambda: neuron_runs(law, 0.1, 0.1, 0.1, SGD(), 1, radius=1e200), ValueError, "radius"),
        (
            lambda: neuron_runs(FiniteSignal([1.0, 2.0]), 0.1, 0.1, 0.1, SGD(batch_size=3), 1),
            ValueError,
            "batch_size",
        ),
    ]
    for call, error, name in cases:
        with pytest.raises(error, match=name):
            call()


class OwnNormal(Signal):
    """A law of one's own: normal z and inputs of two sizes, known by what it draws only."""

    def __init__(self, mean, squares=(1.0, 1.0)):
        self.mean, self.squares = np.asarray(mean, dtype=float), squares
        self.second_moment, self.mean_square_input = self.mean**2 + 1, np.ones(())

    def batched(self, method, rng=0):
        raise NotImplementedError

    mean_log = batched

    def draw(self, rng, shape):
        return rng.choice(self.squares, size=shape), self.mean + rng.normal(size=shape)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_law_of_ones_own_runs_like_the_compiled_one(batch_size):
    method = SGD(batch_size=batch_size, weight_decay=0.05)
    arguments = np.full(4000, 1e-60), 0.0, 0.6, method, 60
    own, compiled = (
        neuron_runs(law, *arguments, rng=seed)
        for seed, law in ((1, OwnNormal(0.3)), (2, NormalSignal(0.3, 1.0)))
    )
    for name in ("log_plus", "log_minus"):
        one, two = getattr(own, name), getattr(compiled, name)
        error = math.hypot(one.std(), two.std()) / math.sqrt(one.size)
        assert abs(one.mean() - two.mean()) < 4 * error


def test_the_fates_of_a_law_of_ones_own():
    """Far from the saddle, where the cubic terms act, and with all fates."""
    starts, steps = np.full(3000, 0.3), 1500
    eta = [[0.8], [0.3]]
    own = neuron_runs(OwnNormal([[0.1], [0.7]]), starts, 0.1, eta, SGD(), steps, rng=5)
    family = NormalSignal([[0.1], [0.7]], 1.0)
    compiled = neuron_runs(family, starts, 0.1, eta, SGD(), steps, rng=6)
    for fate in NeuronFate:
        one, two = own.share(fate), compiled.share(fate)
        error = np.sqrt((one * (1 - one) + two * (1 - two)) / starts.size)
        assert (np.abs(one - two) <= 4 * error).all(), fate
    assert len(np.unique(own.fate)) >= 3


def test_a_certain_law_of_ones_own_is_gradient_descent():
    class Certain(OwnNormal):
        def draw(self, rng, shape):
            return np.full(shape, 1.69), np.full(shape, 0.91)  # x = 1.3, y = 0.7

    runs = neuron_runs(Certain(0.91), [0.3, -0.2], [0.1, 0.5], 0.4, SGD(), 25, rng=0)
    u, w = np.array([0.3, -0.2]), np.array([0.1, 0.5])
    for _ in range(25):
        pull = 1.3 * (u * w * 1.3 - 0.7)
        u, w = u - 0.4 * pull * w, w - 0.4 * pull * u
    assert np.exp(runs.log_plus) == pytest.approx(np.abs(u + w), rel=1e-12)
    assert np.exp(runs.log_minus) == pytest.approx(np.abs(u - w), rel=1e-9)


def test_a_distribution_of_scipy_is_simulated():
    law = stats.laplace(0.1)
    runs = neuron_runs(law, np.full(3000, 1e-60), 0.0, 0.7, SGD(), 60, rng=0)
    rates = (np.stack([runs.log_plus, runs.log_minus]) - math.log(1e-60)) / 60
    for rate, exponent in zip(rates, saddle_exponents(law, 0.7), strict=True):
        assert abs(rate.mean() - exponent.value) < 4 * rate.std() / math.sqrt(rate.size)


@pytest.mark.parametrize("drawn", [1.0, np.nan])
def test_what_a_law_of_ones_own_draws_is_looked_at(drawn):
    class Odd(OwnNormal):
        def draw(self, rng, shape):
            return np.ones(shape), np.full(shape if np.isnan(drawn) else (1,), drawn)

    with pytest.raises(ValueError, match="draw must return x² and xy as two arrays of finite"):
        neuron_runs(Odd(0.1), 0.1, 0.2, 0.5, SGD(), 5, rng=0)


def test_a_law_without_draw_says_what_to_define():
    class Silent(OwnNormal):
        draw = Signal.draw

    with pytest.raises(NotImplementedError, match=r"Silent does not define draw\(rng, shape\)"):
        neuron_runs(Silent(0.1), 0.1, 0.2, 0.5, SGD(), 5, rng=0)


def test_a_run_that_turned_late_is_not_decided():
    """With x = 0 in the cubic term and z = ±1 in turn, |u + w| and |u − w| change places."""

    class InTurn(OwnNormal):
        calls = 0

        def draw(self, rng, shape):
            self.calls += 1
            return np.zeros(shape), np.full(shape, 1.0 if self.calls % 2 else -1.0)

    law = InTurn(0.1)
    runs = neuron_runs(law, 1.1, -0.1, 0.5, SGD(), 30, rng=0)  # u + w = 1, u − w = 1.2
    assert runs.turned > 15
    assert runs.fate == NeuronFate.UNDECIDED
    early = neuron_runs(InTurn(0.1), 1.1, -0.1, 0.5, SGD(), 1, rng=0)
    assert early.turned == 1


def test_the_mean_square_input_is_weighted():
    law = FiniteSignal([1.0, 2.0], [0.9, 0.1], squares=[1.0, 4.0])
    assert float(law.mean_square_input) == pytest.approx(1.3)
