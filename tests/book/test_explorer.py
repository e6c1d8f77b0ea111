"""The explorer in a browser, from a file: what it says, how it is moved, what it weighs."""

import contextlib
import gzip
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from reader import Reader, Scheme, reading

from stabcore import SGD, Minimum, ReluPair, gd_exponent, sgd_exponent, stable_arcs, stable_steps
from stabcore.companion.plotting import GD_COLOUR, PHASE_COLOURS, REGION_COLOURS, SGD_COLOUR
from stabcore.saddles.phases import PHASES

NUMBER = r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf)"
PANELS = ("minima", "gradients", "large", "neuron")
# d3 7.9.0, dist/d3.min.js of the package on npm.
D3 = "f2094bbf6141b359722c4fe454eb6c4b0f0e42cc10cc7af921fc158fceb86539"
MOST_BYTES = 150_000  # compressed, of all that this page loads and others do not
SMALLEST = 11  # pixels, of letters in pictures
# The words in pictures: size, place and, for the names of ticks, their axis.
LETTERS = """[...document.querySelectorAll(".explorer-panel svg text")]
        .filter(one => one.textContent).map(one => {
            const box = one.getBoundingClientRect();
            const plot = one.closest("svg").parentElement.id;
            const axis = one.closest("g.axis");
            return {text: one.textContent, size: parseFloat(getComputedStyle(one).fontSize),
                    axis: axis ? plot + [...axis.parentElement.children].indexOf(axis) : null,
                    left: box.left, right: box.right, top: box.top, bottom: box.bottom};
        })"""


class Explorer(Reader):
    """A tab with the explorer, opened from the disk."""

    def __init__(self, page: Page, path: Path) -> None:
        super().__init__(page)
        self.path = path
        page.set_default_timeout(60_000)

    def open(self, state: str = "") -> None:
        """Open the page at a state, and wait until its numbers are refined."""
        self.page.goto("about:blank")  # otherwise the browser would only follow the fragment
        self.visit(f"{self.path.as_uri()}#{state}" if state else self.path.as_uri())
        self.settle()

    def settle(self) -> None:
        """Wait until nothing moves and all numbers are refined."""
        self.page.wait_for_function("document.documentElement.dataset.explorer === 'settled'")

    def said(self, name: str) -> str:
        """Return a live text of the page, with an ordinary minus sign."""
        return self.page.inner_text(f'[data-live="{name}"]').replace("−", "-")

    def numbers(self, name: str) -> list[float]:
        """Return the numbers of a live text."""
        return [float(one) for one in re.findall(NUMBER, self.said(name).replace("∞", "inf"))]

    def number(self, name: str) -> float:
        """Return the only number of a live text."""
        (one,) = self.numbers(name)
        return one

    def python(self, panel: str) -> str:
        """Return the question of a picture as Python."""
        return self.page.text_content(f'[data-python="{panel}"] code') or ""


@pytest.fixture(scope="module")
def path(html: Path) -> Path:
    return html / "book" / "explorer.html"


@pytest.fixture
def explorer(browser: Browser, path: Path) -> Iterator[Explorer]:
    with reading(browser) as reader:
        yield Explorer(reader.page, path)


def close(shown: float, value: float, digits: int) -> bool:
    """Say whether a number is shown correctly to so many digits."""
    return bool(abs(shown - value) <= 0.51 * 10 ** (np.floor(np.log10(abs(value))) + 1 - digits))


def test_first_state_says_what_the_package_says(explorer: Explorer) -> None:
    explorer.open()
    eta, problem = 0.15, ReluPair()
    minimum = Minimum.at(problem, [2.8, 1 / 2.8])
    arcs = stable_arcs(problem, eta)
    assert close(explorer.number("mu"), gd_exponent(minimum, eta).value, 3)
    assert close(explorer.number("lambda"), sgd_exponent(minimum, eta).value, 3)
    for name, known in (("arcs-gd", arcs.gd), ("arcs-sgd", arcs.sgd)):
        assert np.allclose(explorer.numbers(name), np.ravel(known.intervals), rtol=5e-4)
    assert explorer.said("minima-verdict") == "SGD, but not GD"
    steps = stable_steps(minimum)
    assert steps.mean_square is not None
    assert np.allclose(explorer.numbers("steps-sgd"), np.ravel(steps.sgd.intervals), rtol=5e-4)
    assert np.allclose(
        explorer.numbers("steps-mean-square")[1], steps.mean_square.intervals[0][1], rtol=1e-3
    )
    assert explorer.said("phase") == "phase Ib"
    assert not explorer.complaints


def test_the_text_without_a_script_is_that_of_the_first_state(
    browser: Browser, explorer: Explorer, path: Path
) -> None:
    explorer.open()
    places = "[...document.querySelectorAll('[data-live]')].map(one => one.textContent)"
    live = explorer.page.evaluate(places)
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(path.as_uri())
        written = [place.text_content() for place in page.query_selector_all("[data-live]")]
        assert page.is_visible(".explorer-still img")
        assert not page.is_visible(".explorer-panel")
    assert written == live


@pytest.mark.parametrize(
    "state",
    [
        "",
        "minimum=1.1&eta=0.2&p=0.7&batch=3&angle=25&ratio=4",
        "eta=0.33&angle=90&p=0.4&flip=0.45",
        "eta=0.1&momentum=0.9&decay=0.1",
        "eta=0.44&angle=40&ratio=1&batch=2&flip=0.1&decay=0.2",
    ],
)
def test_the_question_in_python_has_the_same_answer(explorer: Explorer, state: str) -> None:
    explorer.open(state)
    printed = {}
    for panel in PANELS:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            exec(explorer.python(panel), {})
        printed[panel] = text.getvalue()

    def first_number(text: str) -> float:
        return float(re.findall(NUMBER, text)[0])

    lines = printed["minima"].splitlines()
    for name, line in (("mu", lines[0]), ("lambda", lines[1])):
        assert close(explorer.number(name), first_number(line.split(":")[1]), 3), line
    known = first_number(printed["gradients"].splitlines()[0].split(":")[1])
    shown = explorer.said("gradients-lambda")
    last_digit = 10.0 ** -len(shown.partition(".")[2])
    assert abs(float(shown) - known) <= 0.51 * last_digit + 1e-6
    assert explorer.said("phase").removeprefix("phase ") in printed["neuron"]
    if "wander" in explorer.said("fate"):
        known = first_number(printed["large"].splitlines()[-1].split(":")[1])
        # Time averages of 20,000 steps, two digits shown.
        assert abs(explorer.numbers("fate")[-1] - known) < 0.02
    assert not explorer.complaints


def test_keyboard_moves_and_the_address_remembers(explorer: Explorer) -> None:
    explorer.open()
    slider = explorer.page.locator("#explorer-angle")
    slider.focus()
    for _ in range(20):
        slider.press("ArrowRight")
    explorer.settle()
    assert slider.get_attribute("aria-valuetext") == "angle in degrees 10"
    assert explorer.page.url.endswith("#angle=10")
    assert "10 degrees" in (explorer.page.text_content("#explorer-status") or "")
    before = explorer.said("gradients-lambda")
    explorer.open("angle=10")
    assert explorer.said("gradients-lambda") == before
    explorer.page.fill("#explorer-eta + input", "0.3")
    explorer.page.keyboard.press("Tab")
    explorer.settle()
    assert "eta=0.3" in explorer.page.url
    explorer.page.click("#explorer-reset")
    explorer.settle()
    assert "#" not in explorer.page.url


def test_pointer_drags_every_handle(explorer: Explorer) -> None:
    explorer.open()
    moves = {
        "minima-plane": "minimum",
        "minima-exponents": "minimum",
        "gradients-arrows": "angle",
        "gradients-exponents": "eta",
        "orbits-diagram": "eta",
        "neuron-phases": "flip",
    }
    for plot, name in moves.items():
        explorer.page.click("#explorer-reset")
        explorer.settle()
        knob = explorer.page.locator(f"#{plot} .knob")
        knob.scroll_into_view_if_needed()
        box = knob.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        explorer.page.mouse.move(x, y)
        explorer.page.mouse.down()
        explorer.page.mouse.move(x - 40, y - 60, steps=4)
        explorer.page.mouse.up()
        explorer.settle()
        assert f"{name}=" in explorer.page.url, plot
    assert not explorer.complaints


def test_what_an_address_says_wrongly_is_said(explorer: Explorer) -> None:
    explorer.open("eta=99&p=half&colour=red&angle=30")
    warning = explorer.page.text_content("#explorer-warning") or ""
    assert all(name in warning for name in ("eta", "p", "colour"))
    assert "angle" not in warning
    assert explorer.page.input_value("#explorer-eta + input") == "2.5"
    assert explorer.page.input_value("#explorer-p") == "0.5"
    explorer.open("angle=30")
    assert explorer.page.is_hidden("#explorer-warning")


def test_every_view_of_the_text_is_one(explorer: Explorer) -> None:
    explorer.open()
    links = explorer.page.locator('article a[href^="#"]').evaluate_all(
        "links => links.map(link => link.getAttribute('href')).filter(one => one.includes('='))"
    )
    assert {link[1:] for link in links} == set(VIEWS)
    for link in links:
        explorer.open(link[1:])
        assert explorer.page.is_hidden("#explorer-warning"), link
        assert "NaN" not in explorer.page.inner_text("article"), link
        name, text = VIEWS[link[1:]]
        assert text in explorer.said(name), (link, explorer.said(name))
        assert not explorer.complaints, link


VIEWS = {
    "minimum=1&eta=0.1": ("minima-verdict", "both GD and SGD"),
    "minimum=1.79&eta=0.15": ("minima-verdict", "GD, but not SGD"),
    "p=0.9": ("arcs-sgd", "(2, 14.44)"),
    "batch=4": ("arcs-sgd", "a sliver"),
    "angle=0.5": ("gradients-verdict", "unstable"),
    "minimum=1&ratio=4&angle=30&eta=0.35": ("steps-sgd", " and "),
    "minimum=1&ratio=1&angle=45&eta=0.2": ("gradients-how", "transfer operator"),
    "angle=90": ("gradients-how", "closed form"),
    "momentum=0.9&eta=0.1": ("gradients-how", "transfer operator"),
    "eta=0.32": ("fate", "2 points"),
    "eta=0.36": ("fate", "4 points"),
    "eta=0.44": ("fate", "wander"),
    "eta=0.55": ("fate", "wander"),
    "eta=0.5665": ("fate", "wander"),
    "eta=0.9": ("phase", "phase III"),
    "eta=1.8": ("phase", "phase IV"),
    "eta=0.9&batch=4": ("phase", "phase Ib"),
    "decay=0.5": ("phase", "phase III"),
}


def test_the_colours_are_those_of_the_book(html: Path) -> None:
    folder = html / "_static" / "explorer"
    light = (folder / "explorer.css").read_text(encoding="utf-8").partition("}")[0].lower()
    names = {"both": "both", "gd-only": "GD only", "sgd-only": "SGD only", "neither": "neither"}
    colours = {name: REGION_COLOURS[region] for name, region in names.items()}
    for name, colour in ({"gd": GD_COLOUR, "sgd": SGD_COLOUR} | colours).items():
        assert f"--explorer-{name}: {colour.lower()};" in light
    script = (folder / "explorer.js").read_text(encoding="utf-8")
    for phase in PHASES[:5]:
        assert f'{phase}: ["{PHASE_COLOURS[phase]}",' in script


def test_sliver_is_not_missed(explorer: Explorer) -> None:
    # With B = 4 the factor of a batch is 0 far beyond the rest, and λ negative on 3e-7 beside it.
    explorer.open("batch=4")
    known = stable_arcs(ReluPair(), 0.15, SGD(batch_size=4, replacement=True)).sgd
    assert [b - a < 1e-6 for a, b in known.intervals] == [False, True]
    assert f"a sliver at {known.intervals[1][0]:.6g}" in explorer.said("arcs-sgd")


@pytest.mark.parametrize("width", [390, 640, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_legible(browser: Browser, path: Path, width: int, scheme: Scheme) -> None:
    # 640 is a screen of 1280 at 200 % zoom.
    with reading(browser, width, scheme) as reader:
        explorer = Explorer(reader.page, path)
        explorer.open("angle=30")
        needed = explorer.page.evaluate("document.scrollingElement.scrollWidth")
        letters = explorer.page.evaluate(LETTERS)
    assert needed <= width
    assert min(one["size"] for one in letters) >= SMALLEST
    assert all(one["left"] >= 0 and one["right"] <= width for one in letters)
    ticks: dict[str, list[dict[str, float]]] = {}
    for one in letters:
        if one["axis"]:
            ticks.setdefault(one["axis"], []).append(one)
    assert len(ticks) == 12  # six pictures with two axes; the arrows have none
    for labels in ticks.values():
        for k, one in enumerate(labels):
            for other in labels[k + 1 :]:
                across = min(one["right"], other["right"]) - max(one["left"], other["left"])
                along = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
                assert across <= 0 or along <= 0, (one["text"], other["text"])


def test_forced_colours_paper_and_little_motion(explorer: Explorer) -> None:
    page = explorer.page
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    explorer.open()
    assert page.evaluate("""
        getComputedStyle(document.querySelector("#minima-exponents .curve.gd")).stroke ===
        getComputedStyle(document.querySelector("#minima-exponents text")).fill""")
    assert page.evaluate("""[...document.querySelectorAll(".explorer-panel *")]
        .every(one => getComputedStyle(one).animationName === "none")""")
    page.emulate_media(media="print")
    assert page.is_visible(".explorer-still img")
    assert not page.is_visible(".explorer-panel")
    assert not explorer.complaints


def test_page_is_light_and_alone(html: Path, explorer: Explorer) -> None:
    explorer.open()
    assert all(url.startswith(("file:", "data:", "about:", "blob:")) for url in explorer.requests)
    folder = html / "_static" / "explorer"
    d3 = (folder / "d3-7.9.0.min.js").read_bytes()
    assert hashlib.sha256(d3).hexdigest() == D3
    assert "Permission to use, copy" in (folder / "d3-LICENSE.txt").read_text(encoding="utf-8")
    loaded = [path.read_bytes() for path in folder.iterdir() if path.suffix in (".js", ".css")]
    assert sum(len(gzip.compress(content)) for content in loaded) < MOST_BYTES
    others = [path for path in html.glob("*/*.html") if path.name != "explorer.html"]
    assert not [path for path in others if "_static/explorer" in path.read_text(encoding="utf-8")]
