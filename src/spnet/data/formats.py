"""Which picture files are read, by their content and by the ending of their names: what Pillow decodes itself."""

from functools import cache

# In the order they are tried: first those Pillow knows at once, for the first other name makes it import its plugins
# for forty rare formats. Naming them at all spares it the search through those (1.7 times faster for WebP).
COMMON = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
# EPS is a program that Pillow hands to Ghostscript; of the others it knows the name alone.
_NEVER = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})


@cache
def rare() -> tuple[str, ...]:
    """The other formats that this Pillow decodes."""
    from PIL import Image

    Image.init()
    return tuple(sorted(set(Image.OPEN) - set(COMMON) - _NEVER))


@cache
def endings() -> frozenset[str]:
    """`.png`, `.jfif`, ...: the registered endings, in lower case, of all formats that are read."""
    from PIL import Image

    read = {*COMMON, *rare(), "MPO"}  # MPO: JPEG with further pictures after the first
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in read)
