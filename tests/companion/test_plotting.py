import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from stabcore import ReluPair, stable_arcs
from stabcore.companion import plotting
from stabcore.minima import REGIONS, StabilityTable
from stabcore.problems import NeuronFate
from stabcore.saddles import PHASES
from stabcore.stable_sets import StableSet


@pytest.fixture
def axes():
    mpl.use("agg")
    with plt.style.context("default"):
        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)


def test_the_style_is_applied(axes):
    plotting.use_style()
    assert mpl.rcParams["axes.spines.top"] is False
    assert mpl.rcParams["savefig.dpi"] == 110


def test_every_region_has_a_colour_of_its_own():
    assert tuple(plotting.REGION_COLOURS) == REGIONS
    assert len(set(plotting.REGION_COLOURS.values())) == len(REGIONS)


def test_region_map_colours_each_cell(axes):
    gd = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, math.nan]])
    sgd = np.array([[-1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    plotting.region_map(axes, [1.0, 2.0], [1.0, 2.0, 3.0], gd, sgd)
    mesh = axes.collections[0]
    mesh.update_scalarmappable()
    found = [to_hex(colour).upper() for colour in mesh.get_facecolors().reshape(-1, 4)]
    names = ["both", "GD only", "SGD only", "neither", "undecided", "undecided"]
    assert found == [plotting.REGION_COLOURS[name] for name in names]


def test_legend_names_the_regions(axes):
    plotting.region_legend(axes)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == [f"stable for {name}" for name in REGIONS[:4]]


def test_arc_regions_cover_the_range_without_gaps():
    """Paper D at (0.3, 0.58): GD alone up to 2.154151, SGD alone from 2.537249 to 4.998564."""
    arcs = stable_arcs(ReluPair(probabilities=[0.58, 0.42]), 0.3)
    pieces = plotting.arc_regions(arcs, 2.0, 6.0)
    assert [name for *_, name in pieces] == ["GD only", "neither", "SGD only", "neither"]
    assert [end for _, end, _ in pieces[:-1]] == pytest.approx(
        [2.154151, 2.537249, 4.998564], abs=1e-6
    )
    assert [start for start, *_ in pieces[1:]] == [end for _, end, _ in pieces[:-1]]


def test_hyperbola_draws_the_minima(axes):
    arcs = stable_arcs(ReluPair(), 0.15)
    plotting.hyperbola(axes, arcs, 3.0)
    pieces = plotting.arc_regions(arcs, 2.0, 9 + 1 / 9)
    assert len(axes.lines) == 2 * len(pieces)
    for line, piece in zip(axes.lines, np.repeat(pieces, 2, axis=0), strict=True):
        x, y = line.get_data()
        s = np.array(x) ** 2 + np.array(y) ** 2
        assert x * y == pytest.approx(1, rel=1e-12)
        assert (s.min(), s.max()) == pytest.approx((float(piece[0]), float(piece[1])), rel=1e-9)
        assert line.get_color() == plotting.REGION_COLOURS[piece[2]]


def test_shade_stays_inside_the_axes(axes):
    stable = StableSet(
        intervals=((0.0, 1.0), (2.0, 3.0), (5.0, math.inf)), brackets=(), lower=0, upper=math.inf
    )
    axes.set_xlim(0.5, 6.0)
    plotting.shade(axes, stable, "#000000")
    spans = [(p.get_x(), p.get_x() + p.get_width()) for p in axes.patches]
    assert spans == [(0.5, 1.0), (2.0, 3.0), (5.0, 6.0)]
    assert axes.get_xlim() == (0.5, 6.0)


def test_interval_band(axes):
    plotting.interval_band(axes, [0.0, 1.0], np.zeros(2), np.ones(2), "#0072B2")
    corners = axes.collections[0].get_paths()[0].vertices
    assert (corners.min(axis=0), corners.max(axis=0)) == (
        pytest.approx([0, 0]),
        pytest.approx([1, 1]),
    )


def test_arc_regions_of_empty_sets():
    empty = StableSet(intervals=(), brackets=(), lower=2.0, upper=math.inf)
    assert plotting.arc_regions(
        StabilityTable(gd=empty, sgd=empty, mean_square=empty), 2.0, 3.0
    ) == [(2.0, 3.0, "neither")]


def test_every_phase_and_fate_has_a_colour():
    assert tuple(plotting.PHASE_COLOURS) == PHASES
    assert len(set(plotting.PHASE_COLOURS.values())) == len(PHASES)
    assert list(plotting.FATE_COLOURS) == list(NeuronFate)
    assert len(set(plotting.FATE_COLOURS.values())) == len(NeuronFate)


def test_phase_map_colours_each_cell(axes):
    plotting.phase_map(axes, [1.0, 2.0, 3.0], [1.0, 2.0], [[0, 1, 2], [3, 4, 5]])
    mesh = axes.collections[0]
    mesh.update_scalarmappable()
    found = [to_hex(colour).upper() for colour in mesh.get_facecolors().reshape(-1, 4)]
    assert found == list(plotting.PHASE_COLOURS.values())


def test_fate_map_mixes_the_colours(axes):
    shares = np.zeros((1, 2, 5))
    shares[0, 0, NeuronFate.ORIGIN] = 1.0
    shares[0, 1, [NeuronFate.UNDECIDED, NeuronFate.DIVERGENT]] = 0.5
    plotting.fate_map(axes, [1.0, 2.0], [1.0], shares)
    found = axes.collections[0].get_array().data.reshape(-1, 3)
    assert to_hex(found[0]).upper() == plotting.PHASE_COLOURS["III"]
    grey = np.array([int(plotting.PHASE_COLOURS["IV"][k : k + 2], 16) for k in (1, 3, 5)]) / 255
    assert np.allclose(found[1], (1 + grey) / 2)


def test_phase_handles_have_the_colours():
    handles = plotting.phase_handles(PHASES)
    found = [to_hex(handle.get_facecolor()).upper() for handle in handles]
    assert found == list(plotting.PHASE_COLOURS.values())
    assert all(
        handle.get_label().startswith(name)
        for handle, name in zip(handles, PHASES[:5], strict=False)
    )
