"""Words of any script, for the metrics that compare or count them: one rule for ROUGE, distinct-n, known words and shuffled text.

Scripts that are written without spaces give one token a character, with the marks that it bears.
"""

import unicodedata
from collections.abc import Iterable, Sequence

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts without spaces between words, as a set of the regex module."""
UNSPACED_SHARE = 0.1
"""From this share of its letters on, a text counts as one without spaces: a name that is quoted in another script does not make it one."""
ROUGE_TOKENS = "letters, marks and digits of any script, caseless; one a character without spaces; Porter stems of a-z0-9"

_CHARACTER = rf"[{UNSPACED}]\p{{M}}*"
_CASELESS = regex.compile(rf"{_CHARACTER}|(?:(?![{UNSPACED}])[\p{{L}}\p{{M}}\p{{Nd}}])+")
_LETTERS = regex.compile(rf"{_CHARACTER}|(?:(?![{UNSPACED}])[\p{{L}}\p{{M}}])+(?:['’](?:(?![{UNSPACED}])[\p{{L}}\p{{M}}])+)*")
_PIECE = regex.compile(rf"{_CHARACTER}|[^{UNSPACED}]+")
_KANA, _HAN, _OTHER = (regex.compile(rf"[{some}]") for some in (r"\p{Hiragana}\p{Katakana}", r"\p{Han}", UNSPACED))
_ONE = regex.compile(_CHARACTER)


def words(text: str) -> list[str]:
    """Runs of letters, with inner apostrophes, in lower case; a character each where a script has no spaces."""
    return [word.lower() for word in _LETTERS.findall(text)]


def caseless_tokens(text: str) -> list[str]:
    """Letters, marks and digits; on ASCII text what rouge-score's own tokenizer gives before it stems."""
    found: list[str] = _CASELESS.findall(unicodedata.normalize("NFC", text).casefold())
    return found


def spaced_tokens(text: str) -> list[str]:
    """What stands between white space, as it is; where a script has no spaces, a character each."""
    return [piece for word in text.split() for piece in _PIECE.findall(word)]


def joined_tokens(tokens: Sequence[str]) -> str:
    """``spaced_tokens`` as a text again: a space between two of them, unless one belongs to a script without."""
    parts: list[str] = []
    for i, token in enumerate(tokens):
        if i and not (_ONE.fullmatch(token) or _ONE.fullmatch(tokens[i - 1])):
            parts.append(" ")
        parts.append(token)
    return "".join(parts)


def unspaced_kind(texts: Iterable[str]) -> str:
    """"" for texts with spaces between words; else "chinese", or "other" (Japanese, Thai, Lao, Khmer, Burmese)."""
    letters = han = kana = unspaced = 0
    for text in texts:
        letters += sum(map(str.isalpha, text))
        unspaced += len(_OTHER.findall(text))
        han += len(_HAN.findall(text))
        kana += len(_KANA.findall(text))
    if not unspaced or unspaced < UNSPACED_SHARE * letters:
        return ""
    return "chinese" if han >= (1 - UNSPACED_SHARE) * unspaced else "other"
