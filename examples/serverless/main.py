"""The same calls in a program of one's own: each resource is a Runner on this machine.

python main.py
"""

from __future__ import annotations

import asyncio

from pipeline.model import Memory, device, rank, sentiment
from pipeline.text import Vocabulary, describe, words

TEXTS = ["The docs are clear and it works", "It is slow", "I love it, great work"]


async def main() -> None:
    print("words:     ", words(TEXTS[0]))
    print("describe:  ", describe(TEXTS[0] * 100))
    print("device:    ", device())
    print("sentiment: ", round(sentiment(TEXTS[0]), 3))
    print("rank:      ", [text for _, text in await rank(TEXTS)])
    vocabulary = Vocabulary("en")
    print("vocabulary:", [vocabulary.learn(text) for text in TEXTS])
    memory = Memory(decay=0.5)
    print("memory:    ", [round(await memory.hear(text), 3) for text in TEXTS])
    try:
        sentiment("!")
    except ValueError as error:
        print("error:     ", error)


if __name__ == "__main__":
    asyncio.run(main())
