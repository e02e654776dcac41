"""Small words that several verbs say."""


def paths(count: int) -> str:
    """`1 path`, `12 distinct paths`."""
    return "1 path" if count == 1 else f"{count} distinct paths"
