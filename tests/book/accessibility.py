"""What axe-core objects to on a page."""

from importlib import resources

from reader import Reader

# What remains of the theme's: by rule and selector, and why it stays.
LISTED = {
    ("label-content-name-mismatch", "button.theme-switch-button"): (
        "The text that axe finds is the glyph of an icon."
    ),
    ("label-content-name-mismatch", "button.search-button-field"): (
        "The field shows its keys beside its name, Ctrl + K, which are no part of the name."
    ),
}
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
# Contrast is slow to measure, and the same wherever elements of one kind have the same colours.
MARK_KINDS = """() => {
    const kinds = new Set();
    const ground = element => {
        if (!element) return "";
        const {backgroundColor, backgroundImage, opacity} = getComputedStyle(element);
        const own = [backgroundColor, backgroundImage, opacity].join();
        const opaque = !own.startsWith("rgba") && own.endsWith("none,1");
        return own + (opaque ? "" : ground(element.parentElement));
    };
    for (const one of document.querySelectorAll("body *")) {
        const texts = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!texts || !one.checkVisibility({visibilityProperty: true})) continue;
        const {color, fontSize, fontWeight} = getComputedStyle(one);
        const kind = [one.localName, one.className, color, fontSize, fontWeight, ground(one)];
        if (!kinds.has(kind.join())) one.dataset.kind = "";
        kinds.add(kind.join());
    }
}"""
# The rule on labels is of level A in WCAG 2; axe counts it as experimental.
RUN = """async listed => {
    axe.configure({rules: [{id: "color-contrast", selector: "[data-kind]"}]});
    const {violations} = await axe.run(document, {
        preload: false,
        resultTypes: ["violations"],
        rules: {"label-content-name-mismatch": {enabled: true}},
    });
    return violations.flatMap(({id, nodes}) => nodes.map(({target, html, failureSummary}) => {
        const element = document.querySelector(target[0]);
        const at = listed.findIndex(([rule, selector]) => rule === id && element.matches(selector));
        return [at, `${id}: ${html} ${failureSummary}`];
    }));
}"""


def objections(reader: Reader) -> tuple[list[str], set[tuple[str, str]]]:
    """Return what is objected to on the open page and not listed, and what of the list occurs."""
    show, listed = reader.page.evaluate, list(LISTED)
    show(AXE)
    show(MARK_KINDS)
    found = show(RUN, [list(one) for one in listed])
    return [text for at, text in found if at < 0], {listed[at] for at, _ in found if at >= 0}
