"""Preparation: cheap, and there may be much of it."""

from __future__ import annotations

import re

from flamepy import remote

from pipeline.resources import cpu


@remote(cpu)
def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"[a-z']+", text.lower())


@remote(cpu)
def describe(text: str) -> str:
    """The size of a text in words people use, by a library that only this endpoint has."""
    import humanize

    return f"{humanize.intcomma(len(text))} characters"


@remote(cpu)
class Vocabulary:
    """Numbers words in the order they are first seen. Each worker keeps one for each language."""

    def __init__(self, language: str = "en") -> None:
        self.language = language
        self._numbers: dict[str, int] = {}

    def learn(self, text: str) -> int:
        """How many words are known after this text."""
        for word in re.findall(r"[a-z']+", text.lower()):
            self._numbers.setdefault(word, len(self._numbers))
        return len(self._numbers)

    def number(self, word: str) -> int:
        """Number of a word; KeyError for one that was never seen."""
        return self._numbers[word]
