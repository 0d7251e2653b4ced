"""Tables of worst figures that tests fill and the end of the test session shows, in markdown."""

from collections.abc import Sequence


class Table:
    """Rows by key; a key that comes again keeps the largest of its figures and lists its distinct notes."""

    def __init__(self, title: str, keys: Sequence[str], note: str, figures: Sequence[str], *, by_key: bool = True) -> None:
        self.title, self.columns, self._by_key = title, (*keys, note, *figures), by_key
        self._rows: dict[tuple[str, ...], tuple[list[str], list[float]]] = {}

    def add(self, key: Sequence[str], note: str, figures: Sequence[float]) -> None:
        """One measurement."""
        assert len(key) + 1 + len(figures) == len(self.columns)
        notes, worst = self._rows.setdefault(tuple(key), ([], [0.0] * len(figures)))
        if note not in notes:
            notes.append(note)
        worst[:] = [max(old, new) for old, new in zip(worst, figures, strict=True)]

    def lines(self) -> list[str]:
        """The table, rows in the order of their keys, or as they came; empty when nothing was measured."""
        if not self._rows:
            return []
        items = sorted(self._rows.items()) if self._by_key else self._rows.items()
        rows = [[*key, ", ".join(sorted(notes)), *(f"{x:.1e}" for x in worst)] for key, (notes, worst) in items]
        body = [self.columns, ["---"] * len(self.columns), *rows]
        return [self.title, "", *(f"| {' | '.join(row)} |" for row in body), ""]
