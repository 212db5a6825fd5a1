"""Format the figures of benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Columns as wide as what is in them: the first ``left`` of them aligned left, figures right, all but the last."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1

    def cell(number: int, text: str) -> str:
        if number < left or number == last:
            return text.ljust(widths[number])
        return text.rjust(widths[number])

    return "\n".join("  ".join(cell(*each) for each in enumerate(line)).rstrip() for line in lines)


def spread(values: Sequence[float]) -> str:
    """The smallest and the largest figure, as text."""
    return f"{min(values):.2f} to {max(values):.2f}"


def mebibytes(amount: float) -> str:
    """Bytes as whole MiB."""
    return f"{amount / (1 << 20):.0f}"


def verdict(measured: float, most: float) -> str:
    """``met`` if a figure is at most ``most``, else ``MISSED``."""
    return "met" if measured <= most else "MISSED"
