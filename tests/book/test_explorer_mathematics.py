"""The explorer's mathematics runs in a browser and agrees with `stabcore`.

Both compute exponents with an interval. Where both intervals are narrow the values are compared,
where both exclude 0 the signs, and everywhere the intervals must meet. Half a width is allowed
beyond an interval that is an estimate, which no proof confines.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from stabcore import SGD, Minimum, ReluPair, gd_exponent, sgd_exponent, stable_arcs, stable_steps
from stabcore.descent import bifurcation_diagram
from stabcore.descent.lines import BalancedChain
from stabcore.exponent import Exponent
from stabcore.lyapunov.mean_square import mean_square_edge, mean_square_exponent
from stabcore.lyapunov.proofs import proven_bounds
from stabcore.minima.exponents import law_of
from stabcore.problems.signals import LabelFlips
from stabcore.saddles import saddle_grid
from stabcore.saddles.phases import Phase
from stabcore.stable_sets import negative_steps, overlap

SCRIPT = Path(__file__).resolve().parents[2] / "book/_static/explorer/mathematics.js"

Ask = Callable[..., Any]
Model = dict[str, float]
Interval = tuple[float, float]

NARROW = 5e-7  # half-width of an interval whose value is compared, to twice that
CLOSE = 1e-9  # relative: closed forms, where both sum a few dozen roundings
SCALE = 1e-12  # of exponents near 0: a sum of logarithms of numbers near 1


@pytest.fixture(scope="module")
def ask(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Return a function that evaluates JavaScript on a page that has nothing but the script."""
    blank = tmp_path_factory.mktemp("explorer") / "blank.html"
    blank.write_text(
        "<!doctype html><title>blank</title><script>const before = "
        f'Object.getOwnPropertyNames(window)</script><script src="{SCRIPT.as_uri()}"></script>',
        encoding="utf-8",
    )
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(blank.as_uri())
    yield page.evaluate
    assert not complaints
    page.close()


def minimum_of(model: Model) -> Minimum:
    exact = {0.0: 1.0, 90.0: 0.0, 180.0: -1.0}
    cosine = exact.get(model["angle"], math.cos(math.radians(model["angle"])))
    mixed = cosine * math.sqrt(model["k1"] * model["k2"])
    kernel = [[model["k1"], mixed], [mixed, model["k2"]]]
    return Minimum(kernel, [model["p"], 1 - model["p"]])


def method_of(model: Model) -> SGD:
    return SGD(batch_size=int(model["batch"]), replacement=True, momentum=model["momentum"])


def random_model(rng: np.random.Generator) -> Model:
    ratio = 10 ** rng.uniform(0, 3)
    tiny = 10 ** rng.uniform(-1.3, 0)
    generic = rng.uniform(0, 180, size=4)
    first = bool(rng.integers(2))
    return {
        "k1": ratio if first else 1.0,
        "k2": 1.0 if first else ratio,
        "angle": float(rng.choice([0.0, 90.0, tiny, 90 - tiny, *generic])),
        "p": rng.uniform(0.02, 0.98),
        "batch": int(rng.integers(1, 9)),
        "momentum": float(rng.choice([0.0, 0.0, 0.5, 0.9])),
    }


def is_split(model: Model) -> bool:
    return model["angle"] in {0.0, 90.0, 180.0}


def random_step(rng: np.random.Generator, model: Model) -> float:
    """Return a step size far below or above 2(1 + β)/κ, or near it."""
    mean = model["p"] * model["k1"] + (1 - model["p"]) * model["k2"]
    return float(10 ** rng.uniform(-2, 2.5)) * 2 * (1 + model["momentum"]) / mean


def half_width(lower: float, value: float, upper: float) -> float:
    return max(upper - value, value - lower) if math.isfinite(value) else 0.0


def reference(model: Model, step_size: float) -> Exponent:
    """Return λ of stabcore, or its proven bounds where the explorer has no more."""
    minimum, method = minimum_of(model), method_of(model)
    if model["momentum"] and not is_split(model):
        return proven_bounds(law_of(minimum, step_size, method))
    return sgd_exponent(minimum, step_size, method, rng=0, tolerance=1e-8, steps=20_000)


def assert_agreement(found: dict[str, Any], known: Exponent, case: object) -> None:
    """Compare λ of the explorer with that of stabcore."""
    lower, value, upper = found["lower"], found["value"], found["upper"]
    bounds = found["how"] == "bounds"
    assert math.isnan(value) if bounds else lower <= value <= upper, case
    own = 0.0 if bounds else half_width(lower, value, upper)
    theirs = half_width(known.lower, known.value, known.upper)
    slack = (own + theirs) / 2 + SCALE * (1 + (abs(value) if math.isfinite(value) else 0))
    assert lower <= known.upper + slack, case
    assert upper >= known.lower - slack, case
    if found["sign"] is not None and known.sign is not None:
        assert found["sign"] == known.sign, case
    if not bounds and own < NARROW and theirs < NARROW:
        assert value == pytest.approx(known.value, rel=2 * NARROW, abs=2 * NARROW), case


def test_the_script_defines_one_name_and_touches_nothing_else(ask: Ask) -> None:
    assert ask("typeof mathematics") == "object"
    assert ask("Object.isFrozen(mathematics)")
    added = "Object.getOwnPropertyNames(window).filter((name) => !before.includes(name))"
    assert ask(added) == []
    names = ["batches", "logSum", "negativeSteps", "pair", "gradients", "cubic", "neuron"]
    assert ask("Object.keys(mathematics)") == names
    assert "document" not in SCRIPT.read_text(encoding="utf-8")


@pytest.mark.parametrize(("p", "size"), [(0.5, 1), (0.02, 8), (0.7, 64), (1.0, 3)])
def test_batches_are_binomial(ask: Ask, p: float, size: int) -> None:
    law = ask("([p, B]) => mathematics.batches(p, B)", [p, size])
    for one in law:
        count = round(one["share"] * size)
        weight = math.comb(size, count) * p**count * (1 - p) ** (size - count)
        assert one["weight"] == pytest.approx(weight, rel=1e-12)
    assert math.fsum(one["weight"] for one in law) == pytest.approx(1, rel=1e-13)


def assert_same_intervals(found: list[list[float]], known: tuple[Interval, ...]) -> None:
    assert len(found) == len(known), (found, known)
    for one, other in zip(found, known, strict=True):
        assert one == pytest.approx(other, rel=CLOSE)


def test_log_sums_are_negative_on_the_same_intervals(ask: Ask) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(300):
        size = int(rng.integers(1, 9))
        signs = rng.choice([1, 1, 1, -1], size=size)
        coefficients = signs * 10 ** rng.uniform(-2, 3, size=size)
        cases.append([rng.dirichlet(np.ones(size)).tolist(), coefficients.tolist()])
    found = ask("cases => cases.map(([w, c]) => mathematics.negativeSteps(w, c))", cases)
    for (weights, coefficients), intervals in zip(cases, found, strict=True):
        known = negative_steps(np.array(weights), np.array(coefficients))
        assert_same_intervals(intervals, known.intervals)


def test_a_sliver_around_a_pole_is_found(ask: Ask) -> None:
    # Between the poles ½ log|1 − η||1 − cη| is negative for |1 − η| < 1/(c − 1), nearly.
    intervals = ask("mathematics.negativeSteps([0.5, 0.5], [1, 50001])")
    assert intervals[-1] == pytest.approx([0.99998, 1.00002], abs=1e-8)
    model = {"k1": 1, "k2": 50001, "angle": 0, "p": 0.5, "batch": 1, "momentum": 0}
    table = ask("model => mathematics.gradients.stableSteps(model, 'quick')", model)
    assert table["sgd"] == intervals
    assert table["resolution"] == 0


def test_a_log_sum_is_infinite_at_its_poles_only(ask: Ask) -> None:
    at = "eta => mathematics.logSum([0.5, 0.5], [0.81, 6.25], eta)"
    assert ask(at, 1 / 6.25) == -math.inf
    # From the distance to the pole: 1 − ηc alone would be off by half of itself.
    step_size = math.nextafter(1 / 0.81, 2)
    distance = (step_size - 1 / 0.81) * 0.81
    known = (math.log(distance) + math.log(6.25 * step_size - 1)) / 2
    assert ask(at, step_size) == pytest.approx(known, rel=1e-12)
    assert ask(at, 1e-18) == pytest.approx(-3.53e-18, rel=1e-12)


def test_the_pair_has_the_exponents_and_arcs_of_stabcore(ask: Ask) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        p, size = float(rng.uniform(0.02, 0.98)), int(rng.integers(1, 9))
        step_size, s = float(10 ** rng.uniform(-2, 0)), float(2 + 10 ** rng.uniform(-1, 2))
        problem, method = ReluPair(probabilities=[p, 1 - p]), SGD(batch_size=size, replacement=True)
        minimum = Minimum(s * np.outer([0.9, 2.5], [0.9, 2.5]), [p, 1 - p])
        found = ask("c => mathematics.pair.exponents(...c)", [s, step_size, p, size])
        close = {"rel": CLOSE, "abs": SCALE}
        assert found["mu"] == pytest.approx(gd_exponent(minimum, step_size).value, **close)
        known = sgd_exponent(minimum, step_size, method).value
        assert found["lambda"] == pytest.approx(known, **close)
        known = mean_square_exponent(law_of(minimum, step_size, method)).value
        assert found["meanSquare"] == pytest.approx(known, **close)
        arcs = ask("c => mathematics.pair.arcs(...c)", [step_size, p, size])
        steps = ask("c => mathematics.pair.steps(...c)", [s, p, size])
        tables = (
            (arcs, stable_arcs(problem, step_size, method)),
            (steps, stable_steps(minimum, method)),
        )
        for table, expected in tables:
            assert_same_intervals(table["gd"], expected.gd.intervals)
            assert_same_intervals(table["sgd"], expected.sgd.intervals)
            assert expected.mean_square is not None
            assert_same_intervals(table["meanSquare"], expected.mean_square.intervals)


def test_three_hundred_models_have_the_exponents_of_stabcore(ask: Ask) -> None:
    rng = np.random.default_rng(2)
    models = [random_model(rng) for _ in range(300)]
    cases = [[model, random_step(rng, model)] for model in models]
    found = ask(
        """cases => cases.map(([model, eta]) => ({
            fine: mathematics.gradients.exponents(model, eta, "fine"),
            quick: mathematics.gradients.exponents(model, eta, "quick"),
            steps: mathematics.gradients.stableSteps(model, "quick"),
        }))""",
        cases,
    )
    signs = values = 0
    for case, one in zip(cases, found, strict=True):
        model, step_size = case
        minimum, method = minimum_of(model), method_of(model)
        close = {"rel": CLOSE, "abs": SCALE}
        fine = one["fine"]
        assert fine["mu"] == pytest.approx(gd_exponent(minimum, step_size, method).value, **close)
        square = mean_square_exponent(law_of(minimum, step_size, method)).value
        assert fine["meanSquare"] == pytest.approx(square, **close), case
        edge = mean_square_edge(minimum, method)
        assert one["steps"]["meanSquare"] == [[0, pytest.approx(edge, rel=CLOSE)]], case
        gd_edge = 2 * (1 + model["momentum"]) / minimum.sharpness
        assert one["steps"]["gd"] == [[0, pytest.approx(gd_edge, rel=CLOSE)]], case
        known = reference(model, step_size)
        for effort in ("fine", "quick"):
            assert_agreement(one[effort]["lambda"], known, case)
        exponent = fine["lambda"]
        signs += exponent["sign"] is not None
        values += half_width(*(exponent[k] for k in ("lower", "value", "upper"))) < NARROW
    assert signs > 200  # it is not by silence that they agree
    assert values > 200


def test_a_curve_is_made_of_exponents(ask: Ask) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        model = random_model(rng)
        step_sizes = sorted(random_step(rng, model) for _ in range(6))
        curve = ask(
            """([model, etas]) => {
                const found = mathematics.gradients.curve(model, etas, "quick");
                return Object.fromEntries(Object.entries(found).map(([k, x]) => [k, [...x]]));
            }""",
            [model, step_sizes],
        )
        for k, step_size in enumerate(step_sizes):
            one = ask("c => mathematics.gradients.exponents(...c)", [model, step_size, "fine"])
            assert curve["mu"][k] == one["mu"]
            assert curve["meanSquare"][k] == one["meanSquare"]
            value = one["lambda"]["value"]  # NaN where the curve has a gap
            drawn = {"rel": 0.05, "abs": 0.05, "nan_ok": True}  # by eye: two grids are not many
            assert curve["lambda"][k] == pytest.approx(value, **drawn)


def test_closed_forms_are_stable_at_the_same_steps(ask: Ask) -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        model = random_model(rng) | {"momentum": 0.0, "angle": float(rng.choice([0, 90, 180]))}
        table = ask("model => mathematics.gradients.stableSteps(model, 'fine')", model)
        known = stable_steps(minimum_of(model), method_of(model))
        assert table["resolution"] == known.sgd.resolution == 0
        assert_same_intervals(table["gd"], known.gd.intervals)
        assert_same_intervals(table["sgd"], known.sgd.intervals)
        assert known.mean_square is not None
        assert_same_intervals(table["meanSquare"], known.mean_square.intervals)


@pytest.mark.parametrize(
    ("model", "upper"),
    [
        ({"k1": 1, "k2": 16, "angle": 60, "p": 0.5, "batch": 1, "momentum": 0}, None),
        # Two intervals, the second one around 1/k₁.
        ({"k1": 1, "k2": 50, "angle": 5, "p": 0.9, "batch": 1, "momentum": 0}, 1.2),
        ({"k1": 1, "k2": 4, "angle": 90, "p": 0.3, "batch": 1, "momentum": 0.5}, None),
    ],
)
def test_scans_find_the_stable_steps_of_stabcore(
    ask: Ask, model: Model, upper: float | None
) -> None:
    known = stable_steps(minimum_of(model), method_of(model), upper=upper, points=24).sgd
    for effort in ("fine", "quick"):
        table = ask("c => mathematics.gradients.stableSteps(...c)", [model, effort])
        found = [(a, min(b, known.upper)) for a, b in table["sgd"] if a < known.upper]
        blind = max(known.resolution, table["resolution"])
        pairs = [(a, b) for a in found for b in known.intervals if a[0] < b[1] and b[0] < a[1]]
        for place, listed in enumerate((found, known.intervals)):
            matched = [pair[place] for pair in pairs]
            assert all(high - low <= blind or (low, high) in matched for low, high in listed)
        for pair in pairs:
            for ends in zip(*pair, strict=True):
                sets = (table["brackets"], known.brackets)
                one, other = (bracket(end, of) for end, of in zip(ends, sets, strict=True))
                assert max(one[0], other[0]) <= min(one[1], other[1]) + 1e-6 * ends[0]


def bracket(end: float, brackets: Any) -> Interval:
    """Return the bracket of an end of an interval; an end of the domain is its own."""
    return next(((low, high) for low, high in brackets if low <= end <= high), (end, end))


def test_the_signs_around_the_ends_are_those_of_stabcore(ask: Ask) -> None:
    rng = np.random.default_rng(5)
    checked = 0
    models = [random_model(rng) | {"momentum": 0.0, "batch": 1 + k % 2} for k in range(7)]
    # λ is −∞ at η = 1/k₁ but for a rounding: A₁A₂A₁ is nearly 0, and λ negative in a sliver.
    sliver = {"k1": 1.0, "k2": 131.6461, "angle": 5.0, "p": 0.5, "batch": 1, "momentum": 0.0}
    for model in [sliver, *(model for model in models if not is_split(model))]:
        minimum, method = minimum_of(model), method_of(model)
        table = ask("model => mathematics.gradients.stableSteps(model, 'fine')", model)
        inner = [end for interval in table["sgd"] for end in interval if end > 0]
        brackets = table["brackets"]
        assert len(inner) == len(brackets)
        assert table["resolution"] >= overlap(brackets)
        for k, (end, (low, high)) in enumerate(zip(inner, brackets, strict=True)):
            assert low <= end <= high
            if any(a < high and low < b for a, b in brackets[:k] + brackets[k + 1 :]):
                continue  # two ends that may be none
            before = -1 if any(end == b for _, b in table["sgd"]) else 1
            for step_size, sign in ((low, before), (high, -before)):
                known = sgd_exponent(minimum, step_size, method, rng=0, tolerance=1e-8)
                assert known.sign in {sign, None}, (model, step_size)
                checked += known.sign is not None
    assert len(ask("m => mathematics.gradients.stableSteps(m, 'fine').sgd", sliver)) == 2
    assert checked > 8


def test_momentum_has_bounds_at_other_angles(ask: Ask) -> None:
    model = {"k1": 1, "k2": 4, "angle": 40, "p": 0.3, "batch": 1, "momentum": 0.5}
    assert ask("model => mathematics.gradients.stableSteps(model, 'fine').sgd", model) is None
    found = ask("model => mathematics.gradients.exponents(model, 0.3, 'fine')", model)
    assert found["lambda"]["lower"] == pytest.approx(math.log(0.5) / 2)
    assert found["lambda"]["upper"] == pytest.approx(found["meanSquare"])


def test_a_right_angle_is_exact(ask: Ask) -> None:
    # cos(π/2) is 6e-17: with it the law would not split, and λ not be a closed form.
    model = {"k1": 1, "k2": 2, "angle": 90, "p": 0.5, "batch": 1, "momentum": 0}
    found = ask("model => mathematics.gradients.exponents(model, 1, 'fine').lambda", model)
    assert found == {"value": 0, "lower": 0, "upper": 0, "how": "closed form", "sign": 0}


@pytest.mark.parametrize(
    ("model", "step_size"),
    [
        # A factor is a reflection that exchanges the other one's lines: grids converge slowly.
        ({"k1": 1, "k2": 3, "angle": 45, "p": 0.3, "batch": 1, "momentum": 0}, 2),
        ({"k1": 1, "k2": 1, "angle": 45, "p": 0.3, "batch": 1, "momentum": 0}, 2),
        ({"k1": 1, "k2": 1, "angle": 60, "p": 0.3, "batch": 1, "momentum": 0}, 2),
        # A factor is singular, and one that is 0.
        ({"k1": 1, "k2": 2, "angle": 30, "p": 0.5, "batch": 1, "momentum": 0}, 1),
        ({"k1": 1, "k2": 2, "angle": 30, "p": 0.5, "batch": 2, "momentum": 0}, 0.5),
        ({"k1": 1, "k2": 1, "angle": 180, "p": 0.5, "batch": 1, "momentum": 0}, 1),
        # All factors turn the plane by the same angle.
        ({"k1": 1, "k2": 1, "angle": 0, "p": 0.5, "batch": 2, "momentum": 0.5}, 1),
        # Nearly parallel, far above the edge, and with many batches.
        ({"k1": 1, "k2": 1, "angle": 0.05, "p": 0.5, "batch": 1, "momentum": 0}, 2.1),
        ({"k1": 1, "k2": 2, "angle": 30, "p": 0.5, "batch": 64, "momentum": 0}, 5.5),
        ({"k1": 1, "k2": 3, "angle": 90, "p": 0.5, "batch": 1, "momentum": 0.99}, 0.1),
    ],
)
def test_laws_in_special_position_have_the_exponents_of_stabcore(
    ask: Ask, model: Model, step_size: float
) -> None:
    known = reference(model, step_size)
    for effort in ("fine", "quick"):
        found = ask("c => mathematics.gradients.exponents(...c)", [model, step_size, effort])
        assert_agreement(found["lambda"], known, (model, effort))


def test_a_reflection_at_45_degrees_has_a_closed_form(ask: Ask) -> None:
    model = {"k1": 1, "k2": 3, "angle": 45, "p": 0.3, "batch": 1, "momentum": 0}
    for effort in ("fine", "quick"):
        found = ask("c => mathematics.gradients.exponents(...c).lambda", [model, 2, effort])
        assert found["value"] == pytest.approx(0.7 * math.log(5) / 2, rel=1e-14)


def test_an_interval_allows_for_slow_convergence(ask: Ask) -> None:
    # Close to the reflection λ changes with 1/log of the distance, and values with log of the grid.
    model = {"k1": 1, "k2": 100, "angle": 45 + 1e-9, "p": 0.05, "batch": 1, "momentum": 0}
    found = ask("c => mathematics.gradients.exponents(...c).lambda", [model, 2, "fine"])
    options = {"algorithm": "monte_carlo", "rng": 0, "steps": 100_000, "replicas": 16}
    known = sgd_exponent(minimum_of(model), 2.0, **options)
    assert found["lower"] <= known.upper
    assert found["upper"] >= known.lower


def test_where_every_step_contracts_the_sign_is_known(ask: Ask) -> None:
    # λ itself is above −1e-12, which neither a grid nor the mean square can tell from 0.
    model = {"k1": 1, "k2": 1, "angle": 0.05, "p": 0.5, "batch": 1, "momentum": 0}
    found = ask("m => mathematics.gradients.exponents(m, 2 - 1e-13, 'fine').lambda", model)
    assert found["upper"] - found["lower"] < 1e-7
    assert found["sign"] == -1


def test_rounding_leaves_a_phase_open_on_its_boundary(ask: Ask) -> None:
    # ½ log|1 − η²| is 0 at η = √2, and ½ log|1 − 2.0000000000000004| in floating point.
    phase = ask("mathematics.neuron.phase(0.5, Math.SQRT2, 0, 1)")
    known = saddle_grid(LabelFlips(0.5), math.sqrt(2)).phases
    assert phase == str(Phase(int(known))) == "boundary/undetermined"


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_the_neuron_has_the_phases_of_stabcore(ask: Ask, decay: float, size: int) -> None:
    flips, step_sizes = np.linspace(0, 1, 21), np.linspace(0.05, 4, 40) + 1e-3
    method = SGD(batch_size=size, weight_decay=decay)
    known = saddle_grid(LabelFlips(flips[:, None]), step_sizes, method)
    cases = [[f, eta, decay, size] for f in flips.tolist() for eta in step_sizes.tolist()]
    found = ask("cases => cases.map((c) => mathematics.neuron.exponents(...c))", cases)
    for name, values in (
        ("plus", known.plus),
        ("minus", known.minus),
        ("meanSquare", known.mean_square),
    ):
        mine = np.reshape([one[name] for one in found], values.shape)
        np.testing.assert_allclose(mine, values, rtol=1e-10, atol=1e-13)
    phases = ask("cases => cases.map((c) => mathematics.neuron.phase(...c))", cases)
    expected = [str(Phase(k)) for k in known.phases.ravel()]
    # With f = ½ the mean of the labels is 0, and its sign in stabcore that of a rounding.
    half = np.broadcast_to(np.abs(flips[:, None] - 0.5) < 1e-9, known.phases.shape).ravel()
    differing = [
        (case, mine, other)
        for case, mine, other, skip in zip(cases, phases, expected, half, strict=True)
        if mine != other and not skip
    ]
    assert not differing


def test_the_cubic_is_gradient_descent_of_a_balanced_chain(ask: Ask) -> None:
    parameters = np.linspace(0.1, 2.0, 39)
    known = bifurcation_diagram(BalancedChain(2), parameters, 0.4, transient=500, keep=20)
    for a, points in zip(parameters.tolist(), known.points, strict=True):
        found = ask("a => [...mathematics.cubic.attractor(a, 500, 20, 0.4)]", a)
        assert found == points.tolist()
    orbit = ask("[...mathematics.cubic.orbit(0.4, 1.1, 3)]")
    chain = BalancedChain(2)
    for x, y in pairwise(orbit):
        assert y == float(chain(x, 1.1)) == ask("x => mathematics.cubic.step(x, 1.1)", x)


def test_the_cubic_has_the_periods_of_stabcore(ask: Ask) -> None:
    parameters = np.linspace(0.05, 1.98, 80)
    start = criticals(parameters)
    diagram = bifurcation_diagram(BalancedChain(2), parameters, start, transient=20_000, keep=512)
    periods = 0
    for a, points in zip(parameters.tolist(), diagram.points, strict=True):
        returns = [p for p in range(1, 65) if np.abs(points[p:] - points[:-p]).max() < 1e-9]
        found = ask("a => mathematics.cubic.period(a)", a)
        assert found == (returns[0] if returns else None), a
        periods += found is not None
    assert periods > 40


def criticals(parameters: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((1 + parameters) / (3 * parameters)))


@pytest.mark.parametrize("a", [0.5, 1.2, 1.5, 1.58, 1.9])
def test_the_cubic_has_the_exponent_of_its_orbit(ask: Ask, a: float) -> None:
    found = ask("a => mathematics.cubic.exponent(a, 4000)", a)
    points = bifurcation_diagram(
        BalancedChain(2), [a], float(criticals(np.array([a]))[0]), transient=1000, keep=4000
    ).points[0]
    with np.errstate(divide="ignore"):  # at a = ½ the critical point is the minimum 1 itself
        known = np.log(np.abs(BalancedChain(2).derivative(points, a))).mean()
    assert found == pytest.approx(known, rel=1e-9)
    assert math.isnan(ask("mathematics.cubic.exponent(2.01, 100)"))
