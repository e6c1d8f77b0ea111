import itertools
import math

import numpy as np
import pytest

from stabcore import SGD
from stabcore.problems import LabelFlips, NeuronFate
from stabcore.saddles import label_flip_fates
from stabcore.simulation import neuron_runs

START, FLOOR, RADIUS = 1e-12, 1e-15, 1e-9
PLACE = {"start": START, "floor": FLOOR, "radius": RADIUS}


def follow(labels, eta, decay):
    """Return the fate of one sequence of labels by multiplying it out."""
    a = b = START
    for z in labels:
        a *= abs(1 - eta * decay + eta * z)
        b *= abs(1 - eta * decay - eta * z)
        a, b = (0.0 if part < FLOOR else part for part in (a, b))
        if max(a, b) >= RADIUS:
            if min(a, b) >= START:
                return NeuronFate.DIVERGENT
            return NeuronFate.CORRECT if a > b else NeuronFate.INCORRECT
        if a == b == 0.0:
            return NeuronFate.ORIGIN
    return NeuronFate.UNDECIDED


@pytest.mark.parametrize("flip", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("eta", [0.3, 0.85, 1.0, 1.9, 3.1])
@pytest.mark.parametrize("decay", [0.0, 0.4])
def test_all_sequences_multiplied_out(flip, eta, decay):
    steps, expected = 12, np.zeros(5)
    for labels in itertools.product([1, -1], repeat=steps):
        count = labels.count(-1)
        chance = flip**count * (1 - flip) ** (steps - count)
        expected[follow(labels, eta, decay)] += chance
    found = label_flip_fates(flip, eta, SGD(weight_decay=decay), steps, **PLACE)
    assert found == pytest.approx(expected, abs=1e-13)


def test_every_fate_occurs_above():
    """Otherwise the comparison would be empty."""
    steps = np.array([0.3, 0.85, 1.0, 1.9, 3.1])
    laws = label_flip_fates([[0.0], [0.2], [0.5]], steps, SGD(), 12, **PLACE)
    assert laws.shape == (3, 5, 5)
    assert np.allclose(laws.sum(axis=-1), 1.0, rtol=0, atol=1e-13)
    assert (laws.max(axis=(0, 1)) > 1e-4).all()


def test_flipping_all_labels_changes_nothing():
    flips = np.array([0.1, 0.35, 0.45])
    first, second = (label_flip_fates(f, 0.9, SGD(), 200, **PLACE) for f in (flips, 1 - flips))
    assert first == pytest.approx(second, abs=1e-12)


def test_simulated_frequencies():
    flips, steps = np.array([0.2, 0.4, 0.5])[:, None], np.array([0.25, 0.7, 1.35])
    place = {"floor": 1e-150, "radius": 1e-50}
    law = label_flip_fates(flips, steps, SGD(), 500, start=1e-100, **place)
    replicas = 2_000
    starts = np.full(replicas, 1e-100)
    runs = neuron_runs(
        LabelFlips(flips[..., None]), starts, 0.0, steps[:, None], SGD(), 500, rng=0, **place
    )
    seen = np.stack([runs.share(fate) for fate in NeuronFate], axis=-1)
    error = np.sqrt(np.maximum(law * (1 - law), 1 / replicas) / replicas)
    assert (np.abs(seen - law) / error).max() < 4.5
    assert ((law > 0.05) & (law < 0.95)).any()


def test_long_runs_have_the_fate_of_their_phase():
    """f = 0.4: the saddle attracts for 0.3894 < η < 1.2888."""
    place = {"start": 1e-100, "floor": 1e-150, "radius": 1e-20}
    law = label_flip_fates(0.4, [0.1, 0.7, 1.8], SGD(), 20_000, **place)
    expected = [NeuronFate.CORRECT, NeuronFate.ORIGIN, NeuronFate.DIVERGENT]
    assert law.argmax(axis=-1).tolist() == expected
    assert law[:, NeuronFate.UNDECIDED].max() < 1e-6
    assert law[1, NeuronFate.ORIGIN] > 0.99


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ((1.2, 0.5, 10), {}, "flip_probability"),
        ((0.2, 0.0, 10), {}, "step_size"),
        ((0.2, 0.5, 0), {}, "steps"),
        ((0.2, 0.5, 10), {"method": SGD(batch_size=2)}, "single fresh labels"),
        ((0.2, 0.5, 10), {"floor": 1e-11}, "floor"),
        ((0.2, 0.5, 10), {"start": 1e-8}, "start"),
        ((0.2, 0.5, 10), {"radius": 1.0}, "radius"),
        ((math.nan, 0.5, 10), {}, "flip_probability"),
    ],
)
def test_invalid_arguments(arguments, options, match):
    names = dict(zip(("flip_probability", "step_size", "steps"), arguments, strict=True))
    with pytest.raises(ValueError, match=match):
        label_flip_fates(**(names | {"method": SGD()} | PLACE | options))
