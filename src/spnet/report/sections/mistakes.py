"""Where the network is wrong: which classes it takes for which, and the images it was surest about."""

from collections import Counter

from spnet.report.layout import Cell, figure, note, section, table
from spnet.report.markup import Markup
from spnet.report.numbers import percent_of
from spnet.report.sections.images import gallery
from spnet.report.tested import Tested

TITLE = "Where it is wrong"
PAIRS = 10
SHOWN = 12


def mistakes(tested: Tested) -> Markup:
    wrong = [i for i, (label, said) in enumerate(zip(tested.labels, tested.predicted, strict=True)) if label != said]
    count = len(tested.labels)
    if not wrong:
        return section(TITLE, note(f"Nowhere: all {count:,} test images are right."))
    right = set(range(count)).difference(wrong)
    costs = [percent_of(sum(tested.shares[i] for i in some) / len(some)) for some in (wrong, right) if some]
    spent = f" They cost {costs[0]} of static on average, the others {costs[1]}." if right else ""
    surest = sorted(wrong, key=lambda i: -tested.confidence[i])[:SHOWN]
    words = (
        f"{len(wrong):,} of {count:,} test images are wrong ({percent_of(len(wrong) / count)}).{spent} "
        "Sure: the probability that the network gave to what it said."
    )
    return section(
        TITLE,
        figure("Taken for another class", _pairs(tested, wrong), "The most frequent mistakes, of a class's images."),
        gallery(
            "Wrong, and surest of it",
            surest,
            tested,
            words,
            told=lambda i: f"{percent_of(tested.confidence[i], 0)} sure",
            broad=True,
        ),
    )


def _pairs(tested: Tested, wrong: list[int]) -> Markup:
    pairs = Counter((tested.labels[i], tested.predicted[i]) for i in wrong).most_common(PAIRS)
    of_class = Counter(tested.labels)
    rows = [
        [
            Cell(f"{tested.classes[label]} → {tested.classes[said]}"),
            Cell(f"{times:,} of {of_class[label]:,}"),
            Cell(percent_of(times / of_class[label])),
        ]
        for (label, said), times in pairs
    ]
    return table(["class → taken for", "images", "share"], rows)
