"""What axe-core objects to, on every page, at both widths and in both colour schemes."""

from importlib import resources
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from reader import DESKTOP, PHONE, Reader, Scheme, pages_of, reading

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
VIEWS: list[tuple[int, Scheme]] = [
    (DESKTOP, "light"),
    (DESKTOP, "dark"),
    (PHONE, "light"),
    (PHONE, "dark"),
]
# What remains of the theme's and of others, by rule and selector.
LISTED: dict[tuple[str, str], str] = {}
# Contrast is slow to measure, and the same wherever an element of one kind has the same colours.
MARK_KINDS = """() => {
    const kinds = new Set();
    const ground = element => {
        const style = element && getComputedStyle(element);
        if (!style) return "";
        const {backgroundColor: colour, backgroundImage: image, opacity} = style;
        const opaque = !/^rgba/.test(colour) && image === "none" && opacity === "1";
        return colour + image + opacity + (opaque ? "" : ground(element.parentElement));
    };
    for (const one of document.querySelectorAll("body *")) {
        const texts = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!texts || !one.checkVisibility({visibilityProperty: true})) continue;
        const {color, fontSize, fontWeight} = getComputedStyle(one);
        const kind = [one.localName, one.className, color, fontSize, fontWeight, ground(one)];
        if (kinds.has(kind.join())) continue;
        kinds.add(kind.join());
        one.dataset.kind = "";
    }
}"""
# The rule on labels, which axe counts as experimental, is one of WCAG 2 at level A.
RUN = """async listed => {
    axe.configure({rules: [{id: "color-contrast", selector: "[data-kind]"}]});
    const {violations} = await axe.run(document, {
        resultTypes: ["violations"],
        rules: {"label-content-name-mismatch": {enabled: true}},
    });
    return violations.flatMap(({id, nodes}) => nodes.map(({target, html, failureSummary}) => {
        const element = document.querySelector(target[0]);
        const at = listed.findIndex(([rule, selector]) => rule === id && element.matches(selector));
        return [at, `${id} ${html} ${failureSummary}`];
    }));
}"""


def objections_to(reader: Reader, page: Path) -> list[tuple[int, str]]:
    """Return what axe objects to on a page, with the number of its exception in the list, or -1."""
    reader.visit(page.as_uri())
    reader.page.evaluate(AXE)
    reader.page.evaluate(MARK_KINDS)
    return [tuple(one) for one in reader.page.evaluate(RUN, [list(one) for one in LISTED])]


@pytest.fixture(scope="module")
def found(html: Path, browser: Browser) -> list[tuple[int, str]]:
    objections = []
    for width, scheme in VIEWS:
        with reading(browser, width, scheme) as reader:
            for page in pages_of(html):
                name = f"{page.relative_to(html)}, {width} pixels, {scheme}"
                objections += [(at, f"{name}: {text}") for at, text in objections_to(reader, page)]
    return objections


def test_nothing_is_objected_to_but_what_is_listed(found: list[tuple[int, str]]) -> None:
    assert not [text for number, text in found if number < 0]


def test_what_is_listed_is_still_there(found: list[tuple[int, str]]) -> None:
    seen = {number for number, _ in found}
    assert not [names for number, names in enumerate(LISTED) if number not in seen]
