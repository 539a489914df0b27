"""How many tokens a text has, about, where no provider counted them.

A token is about four characters of English (OpenAI, "What are tokens and how to count them"),
five of them where all are letters and spaces, one to one and a half of Chinese, and two digits
or signs. The weights are
fitted to OpenAI's o200k_base on samples in thirteen languages, code and JSON, where the
estimate is within a fifth of the count; tests/unit/chat/test_token_estimate.py holds them.
Older vocabularies (cl100k_base) need up to three times as many for scripts that are not Latin.
"""

import re

# Tokens for one character.
_OF_A_LETTER = 1 / 5
_OF_A_SIGN = 0.55
_OF_OTHERS = 0.5
_BY_SCRIPT = (
    # Chinese and Japanese characters, kana, and their punctuation.
    (re.compile("[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"), 0.8),
    (re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]"), 0.7),  # Korean.
    (re.compile("[\u0400-\u052f]"), 1 / 3.7),  # Cyrillic.
    # Greek, Hebrew, Arabic, the scripts of India, Thai.
    (re.compile("[\u0370-\u03ff\u0530-\u109f]"), 1 / 2.9),
    (re.compile("[\U00010000-\U0010ffff]"), 1.4),  # Emoji, for most.
)
_ASCII_LETTERS = bytes(b for b in range(128) if chr(b).isalpha() or chr(b).isspace())
_NOT_ASCII = re.compile("[^\x00-\x7f]+")

# Characters of the longest tokens: of words, and of phrases in Chinese or Japanese.
_LONGEST_WORD = 24
_LONGEST_PHRASE = 8

# Text is looked at in portions: for each piece of a stream that would cost more than the rest.
_PORTION_CHARACTERS = 400


def estimate(text: str) -> float:
    """About how many tokens `text` has; exactly 0 for the empty one."""
    ascii_bytes = text.encode("ascii", "ignore")
    signs = len(ascii_bytes.translate(None, _ASCII_LETTERS))
    tokens = (len(ascii_bytes) - signs) * _OF_A_LETTER + signs * _OF_A_SIGN
    if len(ascii_bytes) == len(text):
        return tokens
    others = "".join(_NOT_ASCII.findall(text))
    for script, weight in _BY_SCRIPT:
        rest = script.sub("", others)
        tokens += (len(others) - len(rest)) * weight
        others = rest
    return tokens + len(others) * _OF_OTHERS


def at_least(text: str) -> int:
    """Tokens that `text` has in any case, whatever tokenizer cut it: none goes on past a space."""
    split = text.split()
    words = len(split)
    if len(text) > words * _LONGEST_WORD:  # Hardly ever: there are words longer than any token.
        words = sum(1 + len(word) // _LONGEST_WORD for word in split)
    if text.isascii():
        return words
    return max(words, len(_BY_SCRIPT[0][0].findall(text)) // _LONGEST_PHRASE)


def rounded(tokens: float) -> int:
    """A whole number of tokens, and no less than one of what is there."""
    return max(round(tokens), 1) if tokens else 0


class TokenCounter:
    """Counts a text that arrives in pieces, as `estimate` and `at_least` do."""

    __slots__ = ("_last", "_pieces", "_since", "_sure", "_tokens")

    def __init__(self) -> None:
        """Has counted nothing yet."""
        self._pieces: list[str] = []
        # Characters since `add` last said that there is a portion more.
        self._since = 0
        self._last = " "
        self._tokens = 0.0
        self._sure = 0

    def add(self, text: str) -> bool:
        """Counts `text` too. Returns whether there is a portion more since it last was True."""
        if not text:
            return False
        self._pieces.append(text)
        self._since += len(text)
        if self._since < _PORTION_CHARACTERS:
            return False
        self._since = 0
        return True

    @property
    def tokens(self) -> int:
        """About how many tokens there are: a whole number, and above 0 where there is any text."""
        self._count()
        return rounded(self._tokens)

    @property
    def sure(self) -> int:
        """How many there are in any case."""
        self._count()
        return self._sure

    def _count(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces = []
            self._tokens += estimate(text)
            # Of a word that was cut in two, both halves would be counted.
            cut = not (self._last.isspace() or text[0].isspace())
            self._sure += max(at_least(text) - cut, 0)
            self._last = text[-1]
