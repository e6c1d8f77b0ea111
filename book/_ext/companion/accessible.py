"""What a screen reader says of the theme's parts, where they leave it out or say it wrongly."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# Each part of a page as it is written, and as it should be.
CURES = {
    # The words beside it say which code is hidden; this label would be read in their place.
    '<summary aria-label="Toggle hidden content">': "<summary>",
    # A role that is deprecated, and not one of a list's items.
    'role="doc-biblioentry"': 'role="listitem"',
}
ARROW = re.compile(r"(<details[^>]*>)<summary>")
NAMED = r'\1<summary aria-label="Pages of this part">'


def cure(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Rewrite the article, and name the arrows of the table of contents."""
    for wrong, right in CURES.items():
        context["body"] = context.get("body", "").replace(wrong, right)
    contents = context["generate_toctree_html"]

    def named(*args: object, **options: object) -> str:
        return ARROW.sub(NAMED, str(contents(*args, **options)))

    context["generate_toctree_html"] = named
