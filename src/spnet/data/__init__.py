"""Where images come from: `load("cifar10")`, and the pure functions that cut, shuffle, augment and normalise them.

Data lie on the device as bytes; a batch is an index, augmentation is batched, and nothing is done per image on the
host. Importing this package imports torch and nothing slower, and never downloads.
"""

from spnet.data.augment import augment, flip, normalise, pad_crop
from spnet.data.batches import epoch_batches, ordered_batches
from spnet.data.dataset import Augmentation, Dataset, Split
from spnet.data.pictures import read_picture
from spnet.data.source import Source
from spnet.data.spec import names, parse
from spnet.data.subset import balanced_subset, validation_part

__all__ = [
    "Augmentation",
    "Dataset",
    "Source",
    "Split",
    "augment",
    "balanced_subset",
    "epoch_batches",
    "flip",
    "load",
    "names",
    "normalise",
    "ordered_batches",
    "pad_crop",
    "read_picture",
    "validation_part",
]


def load(spec: str, *, may_download: bool = True, workers: int = 1, cache_gb: float = 0.0) -> Dataset:
    """Load the data that `NAME`, `NAME:PATH` or `NAME:PATH?size=N` stands for; `names()` lists the NAMEs.

    `may_download`: what is not on this machine may be fetched, if there is a place to fetch it from.
    `workers`, `cache_gb`: for photos, threads that decode and gigabytes of decoded ones to keep in memory.

    UserError if there is no such data, or if it is not fit for training.
    """
    parsed = parse(spec)
    if parsed.name == "digits":
        from spnet.data import digits

        return digits.load().validated()
    if parsed.name == "folder":
        from spnet.data import folder

        return folder.load(parsed).validated()
    if parsed.name == "photos":
        from spnet.data.photos import load as photos

        return photos.load(parsed, workers=workers, cache_gb=cache_gb).validated()
    if parsed.name == "parquet":
        from spnet.data import parquet

        return parquet.load(parsed).validated()
    from spnet.data import cifar

    return cifar.load(parsed, may_download).validated()
