"""Numbers with their nouns, as sentences for people show them."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun: `1 document`, `2 documents`. `many` is the plural where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
