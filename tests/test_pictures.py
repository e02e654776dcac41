"""Pictures as files have them: every mode, ending and state, the same for training and for predicting."""

import io
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spnet.cli import main
from spnet.data import load, read_picture
from spnet.errors import UserError

SIDE = 8
rng = np.random.default_rng(0)
LEVELS = np.kron(rng.integers(0, 256, (4, 4), dtype=np.uint8), np.ones((2, 2), dtype=np.uint8))
"""An 8 x 8 grey picture."""
COLOURS = np.stack([LEVELS, LEVELS // 2, 255 - LEVELS], 2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path_factory.mktemp("cache")))


def classes(root: Path, picture: Image.Image, ending: str = ".png", count: int = 5, **options: Any) -> Path:
    """Two classes of `count` copies."""
    for name in ("b", "d"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture.save(root / name / f"{i}{ending}", **options)
    return root


GREY = [("1", ".png"), ("L", ".png"), ("LA", ".png"), ("I;16", ".png"), ("I", ".tif"), ("F", ".tif"), ("P", ".png")]
GREY += [("PA", ".tif"), ("RGB", ".png"), ("RGBA", ".png"), ("CMYK", ".tif"), ("YCbCr", ".tif"), ("L", ".gif")]
GREY += [("1", ".pbm"), ("I;16", ".pgm"), ("L", ".pcx"), ("L", ".tga"), ("L", ".jp2")]


@pytest.mark.parametrize(("mode", "ending"), GREY)
def test_grey_in_any_mode_is_grey_and_not_mirrored(mode: str, ending: str, tmp_path: Path) -> None:
    data = load(f"folder:{classes(tmp_path, Image.fromarray(LEVELS).convert(mode), ending)}")
    expected = np.where(np.array(Image.fromarray(LEVELS).convert("1")), 255, 0) if mode == "1" else LEVELS
    assert (data.in_channels, data.augmentation.flip) == (1, False)
    assert np.array_equal(data.train.images[0, 0].numpy(), expected)
    alone, _ = read_picture(tmp_path / "b" / f"0{ending}", 1, (SIDE, SIDE))
    assert np.array_equal(alone[0].numpy(), expected)


def test_lossy_webp_of_grey_is_grey(tmp_path: Path) -> None:
    """That format has no grey: it comes back with channels one level apart."""
    classes(tmp_path, Image.fromarray(np.kron(LEVELS, np.ones((4, 4), dtype=np.uint8))), ".webp", quality=60)
    data = load(f"folder:{tmp_path}")
    assert (data.in_channels, data.augmentation.flip) == (1, False)
    assert load(f"folder:{tmp_path}?size=9").in_channels == 1
    alone, note = read_picture(tmp_path / "b" / "0.webp", 1, (32, 32))
    assert note is None and np.array_equal(alone.numpy(), data.train.images[0].numpy())


@pytest.mark.parametrize(("mode", "ending"), [("RGB", ".png"), ("P", ".png"), ("CMYK", ".tif"), ("YCbCr", ".tif")])
def test_one_coloured_picture_makes_a_data_set_of_colour(mode: str, ending: str, tmp_path: Path) -> None:
    classes(tmp_path, Image.fromarray(LEVELS))
    Image.fromarray(COLOURS).convert(mode).save(tmp_path / "b" / f"x{ending}")
    data = load(f"folder:{tmp_path}")
    assert (data.in_channels, data.augmentation.flip) == (3, True)


@pytest.mark.parametrize(("levels", "ending"), [(257, ".png"), (257, ".tif"), (256, ".png")])
def test_sixteen_bits_of_grey_become_eight(levels: int, ending: str, tmp_path: Path) -> None:
    classes(tmp_path, Image.fromarray(LEVELS.astype(np.uint16) * levels), ending)
    assert np.array_equal(load(f"folder:{tmp_path}").train.images[0, 0].numpy(), LEVELS)
    image, note = read_picture(tmp_path / "b" / f"0{ending}", 1, (SIDE, SIDE))
    assert np.array_equal(image[0].numpy(), LEVELS) and note == "scaled to 8 bits"


def test_sixteen_bits_of_colour_become_eight(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (COLOURS.astype(">u2") * 257).reshape(SIDE, -1)
    pixels = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    image, _ = read_picture(tmp_path / "x.png", 3, (SIDE, SIDE))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), COLOURS)


def test_fractions_are_shares_of_white(tmp_path: Path) -> None:
    Image.fromarray(LEVELS.astype(np.float32) / 255).save(tmp_path / "x.tif")
    assert np.array_equal(read_picture(tmp_path / "x.tif", 1, (SIDE, SIDE))[0][0].numpy(), LEVELS)


@pytest.mark.parametrize("value", [-1.0, 70000.0, np.nan, np.inf])
def test_numbers_that_are_no_brightness_are_refused(value: float, tmp_path: Path) -> None:
    levels = LEVELS.astype(np.float32)
    levels[0, 0] = value
    Image.fromarray(levels).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=r"x\.tif.* not within 0 to 65535"):
        read_picture(tmp_path / "x.tif", 1, (SIDE, SIDE))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB", "I;16"])
def test_transparent_parts_are_laid_on_white(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The left half is transparent, over black."""
    file = tmp_path / ("x.tif" if mode == "PA" else "x.png")
    levels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    levels[:, 4:] = 100
    if mode in ("RGBA", "LA", "PA"):
        picture = Image.fromarray(levels).convert("RGBA")
        picture.putalpha(Image.fromarray(np.where(levels == 0, 0, 255).astype(np.uint8)))
        picture.convert(mode).save(file)
    elif mode == "I;16":
        Image.fromarray(levels.astype(np.uint16) * 257).save(file, transparency=0)
    else:
        Image.fromarray(levels).convert(mode).save(file, transparency=(0, 0, 0) if mode == "RGB" else 0)
    expected = np.where(levels == 0, 255, 100)
    for channels in (1, 3):
        image, note = read_picture(file, channels, (SIDE, SIDE))
        assert (image.numpy() == expected).all() and "transparent parts laid on white" in str(note)
    for name in ("b", "d"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "set" / name / f"{i}{file.suffix}").write_bytes(file.read_bytes())
    assert (load(f"folder:{tmp_path}/set").train.images.numpy() == expected).all()
    assert "10 of 10 pictures transparent parts laid on white" in capsys.readouterr().err


def test_opaque_alpha_needs_no_word(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).convert("RGBA").save(tmp_path / "x.png")
    assert read_picture(tmp_path / "x.png", 3, (SIDE, SIDE))[1] is None


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_a_damaged_exif_block_leaves_the_picture_readable(ending: str, tmp_path: Path) -> None:
    block = b"Exif\0\0not a TIFF header" if ending == ".jpg" else b"not a TIFF header"
    Image.fromarray(COLOURS).save(tmp_path / f"x{ending}", exif=block)
    image, note = read_picture(tmp_path / f"x{ending}", 3, (SIDE, SIDE))
    assert image.shape == (3, SIDE, SIDE)
    assert note == "not turned (its EXIF block is damaged)" or ending == ".jpg"  # Pillow may drop the block itself
    classes(tmp_path / "set", Image.fromarray(COLOURS), ending, exif=block)
    assert len(load(f"folder:{tmp_path}/set").train) == 8


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JPG", ".apng", ".avif", ".jp2", ".tga", ".pcx", ".ico", ".mpo"])
def test_what_the_decoder_reads_is_taken_whatever_its_ending(ending: str, tmp_path: Path) -> None:
    if ending.lower() not in {*Image.registered_extensions(), ".mpo"}:
        pytest.skip("this Pillow lacks it")
    classes(tmp_path, Image.fromarray(np.kron(COLOURS, np.ones((2, 2, 1), dtype=np.uint8))), ending)
    data = load(f"folder:{tmp_path}")
    assert len(data.train) == 8 and data.image_size == (16, 16)


def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without opening it: a pipe would wait for ever."""
    classes(tmp_path, Image.fromarray(COLOURS))
    inside = tmp_path / "b"
    os.mkfifo(inside / "pipe.png")
    (inside / "gone.png").symlink_to("nowhere")
    (inside / "inner").mkdir()
    for name in ("notes.txt", "no-ending", ".DS_Store", "._0.png"):
        (inside / name).write_text("")
    Image.fromarray(COLOURS).save(tmp_path / "stray.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(inside / "socket.png"))
    assert len(load(f"folder:{tmp_path}").train) == 8
    server.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"spnet: left out in '{tmp_path}': 8, that is 2 by the ending (none, .txt), 3 not a regular file "
        "('gone.png'), 1 hidden, 1 in no class folder, 1 folders"
    )


def test_unreadable_pictures_are_counted_and_the_first_named(tmp_path: Path) -> None:
    classes(tmp_path, Image.fromarray(COLOURS))
    for name in ("1.png", "2.png"):
        (tmp_path / "d" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"2 of 10 images are not readable; the first: '.*/d/1\.png' is not a readable"):
        load(f"folder:{tmp_path}")


def test_the_median_side_is_advised_for_mixed_sizes(tmp_path: Path) -> None:
    classes(tmp_path, Image.fromarray(COLOURS).resize((40, 30)))
    Image.fromarray(COLOURS).resize((3, 5)).save(tmp_path / "b" / "0.png")
    Image.fromarray(COLOURS).resize((500, 400)).save(tmp_path / "b" / "1.png")
    with pytest.raises(UserError, match=r"0\.png' is 3x5 and .*1\.png' is 500x400; .*\?size=30'"):
        load(f"folder:{tmp_path}")


def test_parquet_takes_the_same_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(LEVELS.astype(np.uint16) * 257).save(buffer, "PNG")
    pq.write_table(pa.table({"image": [buffer.getvalue()] * 10, "label": [0, 1] * 5}), tmp_path / "a.parquet")
    data = load(f"parquet:{tmp_path}/a.parquet")
    assert np.array_equal(data.train.images[0, 0].numpy(), LEVELS) and not data.augmentation.flip
    assert "10 of 10 pictures scaled to 8 bits" in capsys.readouterr().err


def trained(root: Path | str, *more: str) -> list[str]:
    tiny = ["--method", "static", "--backbone", "resnet8", "--epochs", "1", "--batch-size", "4", "--validation", "0"]
    return ["train", *tiny, "--data", f"folder:{root}", *more]


@pytest.mark.parametrize(("flip", "mirrored"), [("auto", True), ("false", False), ("true", True)])
def test_mirroring_has_a_switch_of_its_own(flip: str, mirrored: bool, tmp_path: Path, monkeypatch) -> None:
    from spnet.training import loop

    seen = []
    train_epoch = loop.train_epoch
    monkeypatch.setattr(loop, "train_epoch", lambda *a, **k: seen.append(k["augmentation"]) or train_epoch(*a, **k))
    classes(tmp_path / "set", Image.fromarray(COLOURS))
    assert main(trained(tmp_path / "set", "--flip", flip, "--out", str(tmp_path / "run"))) == 0
    assert [(how.pad, how.flip) for how in seen] == [(1, mirrored)]


def test_the_switch_renames_no_old_run_and_takes_nothing_else() -> None:
    from spnet.runs.config import RunConfig

    plain = RunConfig("static", "", "resnet8", "digits", {"epochs": 3})
    assert plain.hash == plain.with_settings(flip="auto").hash != plain.with_settings(flip=True).hash
    assert plain.with_settings(flip=True).hash == plain.with_settings(flip="true").hash
    with pytest.raises(UserError, match="unknown flip 'maybe'"):
        plain.with_settings(flip="maybe")


def test_large_pictures_are_priced_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = classes(tmp_path / "set", Image.fromarray(COLOURS).resize((96, 96)))
    assert main(trained(root, "--out", str(tmp_path / "run"))) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "design" in line]
    assert line.startswith(
        "spnet: images of 96x96: resnet8 is a design for 32x32, and each image costs 9 times as much"
    )
    assert line.endswith(f"; --data 'folder:{root}?size=32' resizes them")
    assert main(trained(f"{root}?size=64", "--out", str(tmp_path / "other"))) == 0
    assert "design" not in capsys.readouterr().err
