"""Twenty thousand photos of 224 px through a training: memory, and how long a step waits for its images.

    python benchmarks/photos.py [--photos 20000] [--steps 60] [--out benchmarks/results/photos.json]

Random JPEGs are written to a temporary folder as Parquet. A process of its own then takes training steps of
EfficientNet-Lite0 (batch 32, one worker that decodes) as the loop takes them, and says how much of their time it waited
for images and how much its resident memory grew beyond that of the same steps on images in memory; then it reads the
rest of the epoch without a network, for what a whole pass leaves behind.
"""

import argparse
import io
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from memory import resident_mib
from PIL import Image

import spnet
from spnet import data
from spnet.files import write_json
from spnet.training.finish import made_with

SIDE = 256
"""Pixels a side on disk."""
FILES = 8


def write(folder: Path, photos: int) -> None:
    """Noise smoothed to what a camera's picture takes as a JPEG: about 15 KB."""
    generator = np.random.default_rng(0)
    for file in range(FILES):
        rows = []
        for _ in range(photos // FILES):
            coarse = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            rows.append({"bytes": buffer.getvalue(), "path": None})
        labels = generator.integers(0, 10, len(rows))
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(rows, kind), "label": pa.array(labels)})
        pq.write_table(table, folder / f"train-{file:05}-of-{FILES:05}.parquet")
    pq.write_table(table.slice(0, 64), folder / "test-00000-of-00001.parquet")


def steps(batches: Iterator[tuple[torch.Tensor, torch.Tensor]], count: int) -> tuple[float, float, float]:
    """(seconds in all, seconds waited for images, resident MiB after) of so many training steps."""
    net = spnet.create_model("timm:tf_efficientnet_lite0", "static", image_size=224, num_classes=10, seed=0).train()
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(net.parameters(), 0.01)
    started, waited = time.perf_counter(), 0.0
    for step in range(count + 1):
        if step == 1:  # the first one allocates and warms up
            started, waited = time.perf_counter(), 0.0
        before = time.perf_counter()
        images, labels = next(batches)
        waited += time.perf_counter() - before
        torch.nn.functional.cross_entropy(net(images).logits, labels).backward()
        optimiser.step()
        optimiser.zero_grad()
    return time.perf_counter() - started, waited, resident_mib()


def in_memory() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield torch.zeros(32, 3, 224, 224, dtype=torch.uint8), torch.zeros(32, dtype=torch.int64)


def measure(folder: str, count: int, answer: Any) -> None:
    _, _, baseline = steps(in_memory(), 4)
    train = data.load(f"photos:{folder}?size=224", workers=1).train
    batches = train.epoch(torch.randperm(len(train)), 32, part=(0, 1), copies=1, augmented=True, seed=0)
    seconds, waited, after = steps(batches, count)
    left = sum(len(labels) for _, labels in batches)
    answer.put(
        {
            "photos": len(train),
            "steps": count,
            "seconds_per_step": seconds / count,
            "waited_share": waited / seconds,
            "resident_mib_in_memory": baseline,
            "resident_mib_streamed": after,
            "resident_mib_after_the_epoch": resident_mib(),
            "photos_read": left + 32 * (count + 1),
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Photos through a training.")
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/photos.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), args.photos)
        context = multiprocessing.get_context("spawn")
        answer = context.Queue()
        process = context.Process(target=measure, args=(folder, args.steps, answer))
        process.start()
        row = answer.get()
        process.join()
    print(json.dumps(row, indent=1))
    write_json(args.out, {"made_with": made_with("fp32"), **row})
    return 0


if __name__ == "__main__":
    sys.exit(main())
