"""From text to terms, the same way for what is stored and for what is asked.

Text is brought to Unicode's form NFKC, cut at everything that is neither letter nor digit, lower-cased, freed of the
language's stop words and of accents, and stemmed. Accents go before stemming, so that a word is found whichever way
it was typed; on the languages that write them this costs the stemmer little.

Chinese, Japanese and Korean text has no (or no helpful) gaps between words. A run of such characters becomes its
overlapping pairs, and its last character alone: 東京都 is 東京, 京都, 都. So each pair is a term, each single
character begins a term, and a run is found inside a longer one as the phrase of its pairs.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tantivy

ANALYSIS_VERSION = 1
"""Part of the saved state: a change of anything in here makes other terms, so the index is built anew."""

_STEMMERS = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
LANGUAGES: tuple[str, ...] = ("none", *_STEMMERS)
"""ISO 639-1 codes with a stemmer (Snowball); "none" neither stems nor removes stop words."""

_NO_STOP_WORDS = frozenset({"ar", "el", "ro", "ta", "tr"})
"""tantivy has no list for these."""
_MAX_TERM_BYTES = 255
"""Longer runs of letters and digits are encoded data, not words (the limit of Lucene's standard analyzer)."""

# Ideographs with their iteration marks, kana with the prolonged sound mark, Hangul, and the planes 2 and 3.
CJK = re.compile(
    "([\u1100-\u11ff\u3005-\u3007\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f"
    "\u3131-\u318e\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7af\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]+)"
)


class Analyzer:
    """The analysis of one language. Any number of threads may use it."""

    def __init__(self, language: str) -> None:
        import tantivy

        if language not in LANGUAGES:
            raise ValueError(f"expected a language of {', '.join(LANGUAGES)}, got {language!r}")
        self.language = language

        def start() -> tantivy.TextAnalyzerBuilder:
            builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
            builder = builder.filter(tantivy.Filter.remove_long(_MAX_TERM_BYTES + 1))
            return builder.filter(tantivy.Filter.lowercase())

        self.plain = start().filter(tantivy.Filter.ascii_fold()).build()
        """Words as they are written but for case and accents: what prefixes are compared with."""
        self.terms = self.plain
        """The terms that are counted and ranked."""
        if language != "none":
            stemmer = _STEMMERS[language]
            builder = start()
            if language not in _NO_STOP_WORDS:
                builder = builder.filter(tantivy.Filter.stopword(stemmer))
            builder = builder.filter(tantivy.Filter.ascii_fold())
            self.terms = builder.filter(tantivy.Filter.stemmer(stemmer)).build()

    def positions(self, prepared: str) -> list[tuple[int, str]]:
        """The terms of prepared text with their positions; stop words leave gaps."""
        return [(token.position, token.text) for token in self.terms.pre_tokenize(prepared).tokens]


def normal(text: str) -> str:
    """The text in the form NFKC, with a dotted capital I as a plain one (its small letter would be two characters)."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).replace("İ", "I")


def prepare(text: str) -> str:
    """The text as the analyzers take it: normal, with runs of CJK characters as pairs."""
    if text.isascii():
        return text
    text = normal(text)
    return CJK.sub(lambda match: f" {pairs(match[1])} {match[1][-1]} ", text) if CJK.search(text) else text


def pairs(run: str) -> str:
    """The overlapping pairs of a run of CJK characters; nothing for a single one."""
    return " ".join(run[at : at + 2] for at in range(len(run) - 1))
