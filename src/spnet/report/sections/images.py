"""What single test images cost: all as a histogram, the cheapest and the dearest as pictures; rates by class."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from spnet.report.figures import heat_map, histogram
from spnet.report.layout import figure, note, section
from spnet.report.markup import Markup, element
from spnet.report.numbers import percent_of
from spnet.report.pictures import picture
from spnet.report.tested import Tested

SHOWN = 8
CLASSES = 20
"""Up to so many classes, one picture of each; the extremes of all beyond that."""
LONG_PATH = 24
"""Paths of more blocks get wider cards and a line a stage."""


def image_costs(tested: Tested) -> Markup:
    shares = tested.shares
    title = "What each test image costs"
    doubt = note(tested.note) if tested.note else None
    if max(shares) - min(shares) < 1e-9:
        words = f"Every one of the {len(shares):,} test images costs the same: "
        return section(title, note(words, percent_of(shares[0]), " of the static network."), doubt)
    drawn = histogram(
        [100 * s for s in shares], x_title="cost, % of the static network", y_title="test images", unit=" %"
    )
    few, cheapest, dearest = _extremes(tested)
    every = figure(
        "Cost per test image", drawn, f"All {len(shares):,} test images, by the test rule, stage heads counted."
    )
    legend = (
        "A path is the option taken in each block (0 = skipped), stages apart. Equal costs: in the order of the set."
    )
    return section(
        title,
        every,
        gallery(f"The cheapest {few}", cheapest, tested),
        gallery(f"The dearest {few}", dearest, tested, legend),
        doubt,
    )


def _extremes(tested: Tested) -> tuple[str, list[int], list[int]]:
    """What is chosen, and the numbers of the cheapest and of the dearest images, among equals the first of the set."""
    numbers = range(len(tested.shares))
    if len(tested.classes) > CLASSES:
        shown = min(SHOWN, len(numbers) // 2)
        cheapest = sorted(numbers, key=lambda i: tested.shares[i])
        dearest = sorted(numbers, key=lambda i: -tested.shares[i])
        return f"{shown}", cheapest[:shown], dearest[:shown]
    of_class = [[i for i in numbers if tested.labels[i] == c] for c in range(len(tested.classes))]
    cheapest = [min(mine, key=lambda i: tested.shares[i]) for mine in of_class if mine]
    dearest = [max(mine, key=lambda i: tested.shares[i]) for mine in of_class if mine]
    return "of each class", cheapest, dearest


def gallery(
    title: str,
    chosen: Sequence[int],
    tested: Tested,
    words: str = "",
    told: Callable[[int], str] | None = None,
    broad: bool = False,
) -> Markup:
    """Test images by their numbers, each with its class, what was said of it, its cost and the blocks it ran; `told`
    gives a line more; `broad`: as wide as two figures."""
    cards = []
    wide = len(tested.options) > LONG_PATH
    for i in chosen:
        name, said = tested.classes[tested.labels[i]], tested.classes[tested.predicted[i]]
        right = tested.labels[i] == tested.predicted[i]
        verdict = "✓ right" if right else f"✗ taken for {said}"
        cards.append(
            element(
                "li",
                picture(tested.images.select([i]).images[0], f"test image {i}, {name}"),
                element("b", name),
                element("span", verdict, class_=None if right else "wrong"),
                element("span", told(i)) if told else None,
                element("span", f"cost {percent_of(tested.shares[i], 0)}"),
                element("code", tested.path(i).replace("|", "|\n") if wide else tested.path(i)),
            )
        )
    below = element("p", words, class_="words") if words else None
    return element(
        "figure",
        element("figcaption", title),
        element("ul", *cards, class_="gallery wide" if wide else "gallery"),
        below,
        class_="broad" if broad else None,
    )


def class_rates(tested: Tested) -> Markup | None:
    """Which blocks the images of each class run."""
    if not any(tested.gated):
        return None
    rates = tested.class_rates()
    blocks = len(tested.options)
    drawn = heat_map(
        rates,
        tested.classes,
        [str(block + 1) for block in range(blocks)],
        row="class",
        column="block",
        column_breaks=list(accumulate(tested.stage_lengths))[:-1],
        written=True,
    )
    words = (
        "Share of the class's test images for which each block ran, in %, by the test rule. Vertical lines part stages."
    )
    return section("Execution rate by class and block", figure("Which blocks each class runs", drawn, words))
