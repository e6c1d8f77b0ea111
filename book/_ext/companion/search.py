"""A search that finds a name also by its letters without accents."""

import unicodedata

from sphinx.search.en import SearchEnglish


class Search(SearchEnglish):
    """Enter each word of a page as it is written and as a plain keyboard writes it."""

    def split(self, input: str) -> list[str]:  # noqa: A002 - the name is Sphinx's
        """Return the words of a text, those with accents twice."""
        words = super().split(input)
        return words + [plain for word in words if (plain := without_accents(word)) != word]


def without_accents(word: str) -> str:
    """Return a word without the marks on its letters."""
    letters = unicodedata.normalize("NFD", word)
    return "".join(one for one in letters if not unicodedata.combining(one))
