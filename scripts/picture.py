"""Draw README's picture: test images that cost least and most, each with the blocks that it ran.

    python scripts/picture.py RUN [--data NAME:PATH] [--images 2] [--out docs/images/paths.png]

Among the images that are answered rightly; of equal ones the first of the test set.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import spnet
from spnet import data
from spnet.report.paths import Walked, draw


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw README's picture.")
    parser.add_argument("run")
    parser.add_argument("--data", default="digits", metavar="NAME[:PATH]")
    parser.add_argument("--images", type=int, default=2, help="cheapest and dearest ones, half of each")
    parser.add_argument("--out", type=Path, default=Path("docs/images/paths.png"))
    args = parser.parse_args()
    net, test = spnet.load(args.run), data.load(args.data).test
    engine = spnet.Engine(net, "gathered")
    traces = [engine(test.select([k]).images) for k in range(min(len(test), 1000))]
    right = [k for k, trace in enumerate(traces) if int(trace.logits.argmax()) == int(test.labels[k])]
    cost = np.array([int(traces[k].macs[0]) / net.static_macs for k in right])
    order = np.argsort(cost, kind="stable")
    half = args.images // 2
    dearest = [place for place in np.argsort(-cost, kind="stable")][:half]
    walked = []
    for place in (*order[:half], *dearest):
        trace = traces[right[place]]
        sure = float(trace.logits.softmax(1).max())
        name = (net.classes or [str(k) for k in range(net.num_classes)])[int(trace.logits.argmax())]
        words = f"{100 * cost[place]:.0f} % of the static network's multiply-adds"
        image = test.select([right[place]]).images[0].numpy()
        path = trace.decisions[0].tolist()
        walked.append(Walked(image, f"{name}, {100 * sure:.0f} %", words, path, net.options, net.stage_lengths))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(walked, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
