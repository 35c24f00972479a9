"""The model: on a GPU where there is one, on the CPU where there is none."""

from __future__ import annotations

import asyncio
import os

from flamepy import remote

from pipeline.resources import gpu
from pipeline.text import words

_GOOD = frozenset(["good", "great", "fast", "clear", "happy", "love", "works"])
_BAD = frozenset(["bad", "slow", "broken", "unclear", "sad", "hate", "fails"])


@remote(gpu)
def device() -> str:
    """Where the model computes."""
    return "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") else "cpu"


@remote(gpu)
def sentiment(text: str) -> float:
    """From -1 to 1. ``words`` lives at the other endpoint: deployed, this call goes over the network."""
    found = words(text)
    if not found:
        raise ValueError("there is no word in this text")
    return sum((word in _GOOD) - (word in _BAD) for word in found) / len(found)


@remote(gpu)
async def rank(texts: list[str]) -> list[tuple[float, str]]:
    """Best first. ``sentiment`` is of the same resource, and called directly."""
    moods = await asyncio.gather(*(asyncio.to_thread(sentiment, text) for text in texts))
    return sorted(zip(moods, texts, strict=True), reverse=True)


@remote(gpu)
class Memory:
    """Remembers the moods it was told: a state in the worker."""

    def __init__(self, decay: float = 0.5) -> None:
        self.decay = decay
        self._mood = 0.0

    async def hear(self, text: str) -> float:
        self._mood = self._mood * self.decay + sentiment(text)
        return self._mood
