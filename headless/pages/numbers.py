"""Numbers as a reader wants them: few digits, a prefix instead of zeros."""

from headless.structured import is_number

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
MISSING = "–"  # the dash of an empty cell


def compact(value: float, digits: int = 3) -> str:
    """At most `digits` significant digits with an SI prefix: 1234567 is 1.23M, 0.0125 is 0.0125."""
    if not is_number(value):
        return MISSING
    if value == 0:
        return "0"
    # Rounded first, so that 999,999 is 1M and not 1000k.
    value = float(f"{value:.{digits}g}")
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{prefix}"
    return f"{value:.{digits}g}"


def decimals(value: float | None, places: int = 3) -> str:
    """A fixed number of decimals with a thousands separator; a dash for what is not known."""
    if not is_number(value):
        return MISSING
    text = f"{value:,.{places}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")
