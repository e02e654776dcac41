"""Float images are taken as normalised. Bytes (0 to 255) turned into floats look the same to a network, and ruin it."""

BYTES = 16.0
"""Normalised images stay below this by far; those in 0 ... 255 do not."""


def looks_like_bytes(low: float, high: float) -> bool:
    """Whether float images whose smallest and largest values are these were hardly normalised."""
    return low >= 0 and high > BYTES


def advice(high: float) -> str:
    """What a warning says."""
    return (
        f"float images are taken as normalised, but these reach {high:.0f}: give bytes as uint8, and the network "
        "normalises them."
    )
