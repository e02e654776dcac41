"""One photo at a time: decoded, counted if it cannot be, remembered if there is room."""

import threading

import torch
from torch import Tensor

from spnet.data.photos.items import Items
from spnet.data.photos.views import smaller, stored_side
from spnet.data.pictures import open_picture, planes
from spnet.errors import UserError
from spnet.terminal import say

TOLERATED = 0.01
"""Share of the photos that may be unreadable before a training stops."""


class Reader:
    """Called by several threads at once.

    Args:
        items: encoded photos.
        size: side of what the network sees, in pixels.
        cache_bytes: how much may be remembered. What is met first stays: a training meets every photo equally often,
            so that giving one up for another gains nothing.
    """

    def __init__(self, items: Items, size: int, cache_bytes: int = 0) -> None:
        self.items = items
        self.size = size
        self.cache_bytes = cache_bytes
        self.unreadable: dict[int, str] = {}
        self.decoded = 0
        """How often a photo was decoded."""
        self._cache: dict[int, Tensor] = {}
        self._room = cache_bytes
        self._lock = threading.Lock()

    def __call__(self, index: int) -> Tensor | None:
        """uint8 (3, H, W), the shorter side at most `stored_side`; None if it is unreadable, which is said once.

        Raises:
            UserError: more than 1 % of the photos are unreadable.
        """
        if index in self.unreadable:
            return None
        kept = self._cache.get(index)
        if kept is not None:
            return kept
        name, source = self.items[index]
        try:
            picture, _ = open_picture(source, name)
            photo = torch.from_numpy(planes(picture.convert("RGB")))
        except UserError as error:
            self._count_unreadable(index, str(error))
            return None
        photo = smaller(photo, stored_side(self.size))
        with self._lock:
            self.decoded += 1
            if photo.numel() <= self._room and index not in self._cache:
                self._room -= photo.numel()
                self._cache[index] = photo.clone()
        return photo

    def _count_unreadable(self, index: int, why: str) -> None:
        with self._lock:
            if index in self.unreadable:
                return
            self.unreadable[index] = why
            count = len(self.unreadable)
        if count > max(1, TOLERATED * len(self.items)):
            raise UserError(f"{count} of {len(self.items)} photos are unreadable, more than 1 %; the last: {why}")
        say(f"another stands for it: {why} ({count} so far)")
