"""The published notebooks obey their parameters."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import run
from readable import glued_texts
from stabcore.companion.checks import MIME


def texts(path: Path) -> dict[str, str]:
    """Return the glued texts of an executed notebook."""
    return glued_texts(nbformat.read(path, as_version=4))


def rerun(name: str, parameters: dict[str, object], folder: Path) -> dict[str, str]:
    """Run a published notebook with other parameters and return its glued texts."""
    target = folder / f"{name}.ipynb"
    run.run([run.Job(run.notebooks()[name], target, parameters)])
    return texts(target)


def test_step_size_moves_the_stable_arc_of_gradient_descent(tmp_path):
    """s < 2/(3.53 η)."""
    assert texts(run.notebooks()["gd_stability"])["gd-arc-end"] == "3.77715"
    found = rerun("gd_stability", {"step_size": 0.2, "starts": 500}, tmp_path)
    assert found["gd-arc-end"] == f"{2 / (3.53 * 0.2):.5f}"
    assert found["gd-starts"] == "500"


def test_settings_move_the_stable_arcs_of_sgd(tmp_path):
    """Batches of one at p = 1: the second sample is never drawn and λ = log|1 − 0.81 η s|."""
    parameters = {
        "probabilities": [1.0, 0.58],
        "starts": 500,
        "digit_images": 16,
        "hidden_units": 10,
    }
    found = rerun("sgd_stability", parameters, tmp_path)
    assert found["sgd-arcs-first"] == f"(2, {2 / (0.15 * 0.81):.7g})"
    assert found["sgd-arcs-second"] == "(2.537249, 4.998564)"
    assert found["digits-count"] == "16"


@pytest.mark.parametrize("parameters", [{"stepsize": 0.2}, {"step_size": [0.2]}])
def test_wrong_parameters_are_refused_before_anything_runs(parameters, tmp_path):
    with pytest.raises(run.ParameterError, match="step"):
        rerun("gd_stability", parameters, tmp_path)
    assert not list(tmp_path.iterdir())


def test_published_notebooks_are_light():
    sizes = {name: path.stat().st_size for name, path in run.notebooks().items()}
    # With twice the pixels in 64 colours, at most 1.7 times what one pixel took in 256. A page
    # loads its first figure at once and the others when they come near.
    assert max(sizes.values()) < 650_000, sizes
    assert sum(sizes.values()) < 8_000_000, sizes  # a clone takes seconds


def test_what_is_printed_in_a_row_is_one_output():
    def stream(name, text):
        return nbformat.v4.new_output("stream", name=name, text=text)

    picture = nbformat.v4.new_output("display_data")
    outputs = [
        stream("stdout", "1\n"),
        stream("stdout", "2\n"),
        stream("stderr", "3\n"),
        picture,
        stream("stdout", "4\n"),
    ]
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])
    run._join_streams(node)
    texts = [output.get("text") for output in node.cells[0].outputs]
    assert texts == ["1\n2\n", "3\n", None, "4\n"]


def test_pictures_keep_their_size_resolution_and_colours():
    def picture(array):
        target = io.BytesIO()
        Image.fromarray(array).save(target, "png", dpi=(220, 220))
        return base64.b64encode(target.getvalue()).decode()

    colours = np.zeros((64, 64, 3), np.uint8)
    colours[..., 0] = np.arange(64) // 8 * 30
    colours[..., 1] = np.arange(64)[:, None] // 8 * 30
    transparent = np.zeros((8, 8, 4), np.uint8)
    output = [
        nbformat.v4.new_output("display_data", {"image/png": picture(array)})
        for array in (colours, transparent)
    ]
    kept = output[1].data["image/png"]
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=output)])
    run._shrink_pictures(node)
    found = Image.open(io.BytesIO(base64.b64decode(output[0].data["image/png"])))
    assert found.mode == "P"
    assert found.info["dpi"] == pytest.approx((220, 220), rel=1e-3)  # a whole number a metre
    np.testing.assert_array_equal(np.asarray(found.convert("RGB")), colours)
    assert output[1].data["image/png"] == kept


def test_in_a_notebook_the_style_draws_two_pixels_for_one(tmp_path):
    source, target = tmp_path / "source.ipynb", tmp_path / "target.ipynb"
    code = (
        "import matplotlib.pyplot as plt",
        "from stabcore.companion.plotting import use_style",
        "use_style()",
        "_ = plt.figure(figsize=(2, 1)).add_subplot()",
    )
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [nbformat.v4.new_code_cell("\n".join(code))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), source)
    run.run([run.Job(source, target)])
    (output,) = nbformat.read(target, as_version=4).cells[0].outputs
    drawn = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    shown = output.metadata["image/png"]
    assert drawn.info["dpi"] == pytest.approx((220, 220), rel=1e-3)
    assert [side // 2 for side in drawn.size] == [shown["width"], shown["height"]]


@pytest.mark.parametrize("name", run.notebooks())
def test_at_the_published_parameters_everything_is_tested(name):
    cells = nbformat.read(run.notebooks()[name], as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    rows = [row for o in outputs for row in o.get("data", {}).get(MIME, {}).get("checks", [])]
    assert rows
    assert all(row["passed"] is True for row in rows)
