"""Seeds of independent random streams."""

import hashlib


def stream_seed(seed: int, *names: object) -> int:
    """A seed for the stream called `names`, independent of the other streams of `seed`."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
