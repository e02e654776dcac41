"""Cascade: several networks from cheap to dear. An image goes on to the next while the present one is not sure enough.

The rule is that of Viola and Jones (CVPR 2001) with the confidence of Wang et al. ("Wisdom of Committees", ICLR 2022):
a member answers where the largest probability of its softmax exceeds its confidence. Images that go on are run anew by
the next member, from their pixels; what the members before it cost is added to its own cost.

Shapes: B samples, M members, N blocks of all members together.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from spnet.errors import UserError, is_number
from spnet.inference.cascade.run import cascaded
from spnet.inference.runtimes.masked import masked
from spnet.network.dynamic import DynamicNetwork, Executor
from spnet.network.resized import taking
from spnet.network.trace import Trace

CONFIDENCE = 0.9
"""Of every member, where none is said."""


class Cascade(nn.Module):
    """A network made of networks. Called like one, it returns a `Trace`:

    `logits` of the member that answered, `exit_stage` its index, `macs` of all members that ran, `decisions` of all
    blocks of all members one after another (-1 where a member was not reached), `stage_logits` one a member (those of
    the answer where a member was not reached), `router_logits` (0 where a member was not reached).

    Args:
        members: networks from cheap to dear, of the same classes in one order. They are put into eval mode, and shared,
            not copied: their own thresholds count. Images are as the last one takes them; a member made for smaller
            ones resizes them.
        confidences: of all members but the last, or one for all. A member answers where its largest class probability
            is above: at 0 always, at 1 never.

    Raises:
        UserError: fewer than two members, members that do not go together, confidences that are none.

    Example:
        >>> small = spnet.create_model("resnet8", "static", in_channels=1, image_size=8)
        >>> cascade = spnet.Cascade([small, spnet.load("runs/digits")], confidences=0.9)
        >>> engine = spnet.Engine(cascade, "gathered")  # then calibrate it on images that no member was trained on
        >>> tuple(engine(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).exit_stage.shape)
        (2,)
    """

    def __init__(self, members: Sequence[DynamicNetwork], confidences: float | Sequence[float] = CONFIDENCE) -> None:
        super().__init__()
        members = list(members)
        if len(members) < 2:
            raise UserError(f"a cascade has at least two members, from cheap to dear; not {len(members)}.")
        for k, member in enumerate(members):
            if not isinstance(member, DynamicNetwork):
                raise UserError(f"member {k + 1} of a cascade must be a network of spnet, not {member!r:.40}.")
        for k, member in enumerate(members[:-1], 1):
            _check_alike(members[-1], member, k)
        self.members = nn.ModuleList(taking(member, members[-1].input_shape) for member in members)
        self.confidences = confidences
        self.eval()

    @property
    def confidences(self) -> tuple[float, ...]:
        """Of all members but the last."""
        return self._confidences

    @confidences.setter
    def confidences(self, confidences: float | Sequence[float]) -> None:
        self._confidences = checked_confidences(confidences, len(self.members))

    @property
    def networks(self) -> tuple[DynamicNetwork, ...]:
        """The members, as what they are."""
        return tuple(self.members)  # type: ignore[arg-type]

    @property
    def last(self) -> DynamicNetwork:
        """The dearest member, whose static cost is the unit of every share."""
        return self.networks[-1]

    @property
    def static_macs(self) -> int:
        return self.last.static_macs

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.last.input_shape

    @property
    def num_classes(self) -> int:
        return self.last.num_classes

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where any member knows them."""
        return next((member.classes for member in self.networks if member.classes is not None), None)

    @property
    def options(self) -> tuple[int, ...]:
        """Of all blocks of all members."""
        return tuple(k for member in self.networks for k in member.options)

    @property
    def stage_lengths(self) -> tuple[int, ...]:
        """Blocks of each stage of all members."""
        return tuple(length for member in self.networks for length in member.stage_lengths)

    def check_images(self, images: Tensor) -> None:
        """Raise `UserError` unless these are images (B, C, H, W) that every member takes."""
        self.last.check_images(images)
        if images.is_floating_point():
            check_normalised_alike(self)

    def prepare(self, images: Tensor) -> Tensor:
        """As `DynamicNetwork.prepare`, for members that normalise alike."""
        check_normalised_alike(self)
        return self.last.prepare(images)

    @torch.no_grad()
    def forward(self, images: Tensor, *, executor: Executor = masked) -> Trace:
        """Run images (B, C, H, W), uint8 or normalised float, by the test rule. Later members run on the images that
        go on, and on no others.

        Raises:
            UserError: images of another size or type.
        """
        self.check_images(images)
        runs = [partial(member, executor=executor, heads=False) for member in self.networks]
        return cascaded(self, runs, images, self.confidences)


Model = DynamicNetwork | Cascade
"""What an `Engine` runs."""


def checked_confidences(confidences: float | Sequence[float], members: int) -> tuple[float, ...]:
    """One for each member but the last, as numbers; or a `UserError`."""
    if is_number(confidences):
        confidences = [float(confidences)] * (members - 1)
    if not isinstance(confidences, Sequence) or len(confidences) != members - 1:
        raise UserError(
            f"confidences of {members} members are {members - 1}: one for each but the last, or a single number; not "
            f"{confidences}."
        )
    for confidence in confidences:
        if not is_number(confidence) or not 0 <= confidence < math.inf:
            raise UserError(
                f"a confidence is a probability, such as 0.9 (0: never on, 1: always); not {confidence!r:.60}."
            )
    return tuple(float(confidence) for confidence in confidences)


def normalised_alike(cascade: Cascade) -> bool:
    """Whether all members normalise images by one mean and deviation, so that they can share normalised floats."""
    last = cascade.last
    return all(torch.equal(net.mean, last.mean) and torch.equal(net.std, last.std) for net in cascade.networks)


def check_normalised_alike(cascade: Cascade) -> None:
    if not normalised_alike(cascade):
        raise UserError("members of this cascade normalise images in different ways: give them as uint8 (0 to 255).")


def _check_alike(last: DynamicNetwork, member: DynamicNetwork, k: int) -> None:
    """Raise `UserError` unless member `k` answers the same question about the same images as the last."""
    (channels, *sides), (wanted, *room) = member.input_shape, last.input_shape
    if channels != wanted or any(side > limit for side, limit in zip(sides, room, strict=True)):
        raise UserError(
            f"member {k} of the cascade takes images of {member.input_shape}, the last {last.input_shape}: a member "
            "may take smaller images, not larger ones or other channels."
        )
    if member.num_classes != last.num_classes:
        raise UserError(
            f"member {k} of the cascade has {member.num_classes} classes, the last {last.num_classes}: they must be "
            "alike."
        )
    if last.classes is None or member.classes is None or last.classes == member.classes:
        return
    place = next(i for i, names in enumerate(zip(last.classes, member.classes, strict=True)) if len(set(names)) > 1)
    raise UserError(
        f"member {k} of the cascade calls class {place} '{member.classes[place]}', the last "
        f"'{last.classes[place]}': the classes and their order must be alike."
    )
