"""English prose out of docstrings: paragraphs of sentences are kept; code, tables, signatures, headings and licences are dropped.

A tiny language model is trained on what is kept and its samples are read by people, so a good sentence lost costs less than a
bad one kept.
"""

import re
from collections.abc import Iterator

_MIN_PARAGRAPH = 60  # characters; shorter ones are headings, labels and one-word returns
_MIN_PLAIN_SHARE = 0.94  # letters, spaces and plain punctuation among all characters
_MIN_FUNCTION_WORDS = 0.25  # English prose has about 0.4, lists of names below 0.1
_MIN_WORDS = 8

_FUNCTION_WORD = re.compile(
    r"\b(?:"
    r"a|all|also|an|and|any|are|as|at|be|been|but|by|can|cannot|do|does|each|for|from|has|have|"
    r"if|in|into|is|it|its|may|more|must|no|not|of|on|only|or|other|same|should|so|some|such|"
    r"than|that|the|their|them|then|there|these|they|this|to|use|used|using|was|we|when|where|"
    r"whether|which|will|with|without|would|you|your"
    r")\b",
    re.IGNORECASE,
)
_MARKDOWN_LINK = re.compile(r"!?\[([^\[\]]+)\]\([^()]*\)")
_REST_LINK = re.compile(r"`+([^`<>]+?)\s*<[^<>`]*>`+_{0,2}")
_ROLE = re.compile(r":[a-zA-Z][a-zA-Z:+-]*:`([~!]?)([^`]*)`")
_LITERAL = re.compile(r"\[?`+[~!]?\.?([^`]*)`+_{0,2}\]?")
_STRONG = re.compile(r"\*\*([^*\s][^*]*)\*\*")
_EMPHASIS = re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])")
_CITATION = re.compile(r" ?\[(?:\w+\]_|\d+\]),?")
_REFUSED = re.compile(
    r">>>|::|https?:|www\.|\\|[{}<>=|_^~@#$%+/-]{2}|\.\.|copyright|licen[sc]e|warrant(?:y|ies)|permission is hereby|redistribut|"
    r"deprecated|all rights reserved|auto-?generated|\bTODO\b|\bFIXME\b|e-?mail|\[\w*\]_|\b(?:e\.g|i\.e|etc|vs)\.?$|:\w+:|\{\w*\}",
    re.IGNORECASE,
)
_BULLET = re.compile(r"(?:[-*+•]|\(?\d{1,2}[.)])\s+")
_DIRECTIVE = re.compile(r"\.\. [\w-]+::(.*)")
_PARAMETER = re.compile(r"\*{0,2}[\w.`]+(?: ?\([^()]*(?:\([^()]*\)[^()]*)*\))?: |:\w[^:]*:\s|@\w+ ")
_LABEL = re.compile(r"[*:]{0,2}[\w. ]{1,40}(?: ?\([^()]*(?:\([^()]*\)[^()]*)*\))?(?::| --| -)\s+(?=[A-Z])")
_UNDERLINE = re.compile(r"([-=~^\"*+#])\1{2,}$")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NOT_PLAIN = re.compile(r"[^A-Za-z ,.;:'\"()’-]")
_SENTENCE_END = (".", "!", "?", '."', ".)", ".'")


def prose_paragraphs(text: str) -> Iterator[str]:
    """The prose paragraphs of a dedented docstring, each on one line, markup removed."""
    for block in _blocks(text):
        if len(block) < _MIN_PARAGRAPH or block[-1].isalnum() or block[-1] in ",:;([{=":
            continue
        paragraph = _without_markup(block)
        label = _LABEL.match(paragraph)
        if label:
            paragraph = paragraph[label.end() :]
        if is_prose(paragraph):
            yield paragraph


def is_prose(paragraph: str) -> bool:
    """Whether one line of text reads as English sentences."""
    if len(paragraph) < _MIN_PARAGRAPH or not paragraph[0].isupper() or not paragraph.endswith(_SENTENCE_END):
        return False
    if paragraph.count('"') % 2 or paragraph.count("(") != paragraph.count(")") or _REFUSED.search(paragraph):
        return False
    if len(_NOT_PLAIN.findall(paragraph)) > (1 - _MIN_PLAIN_SHARE) * len(paragraph):
        return False
    words = len(_WORD.findall(paragraph))
    return words >= _MIN_WORDS and len(_FUNCTION_WORD.findall(paragraph)) >= _MIN_FUNCTION_WORDS * words


def _without_markup(block: str) -> str:
    """The block as plain text on one line: links and roles become their text, emphasis and citations go."""
    if "](" in block:
        block = _MARKDOWN_LINK.sub(r"\1", block)
    if "`" in block:
        block = _REST_LINK.sub(r"\1", block)
        block = _ROLE.sub(lambda match: match.group(2).rsplit(".", 1)[-1] if match.group(1) else match.group(2), block)
        block = _LITERAL.sub(r"\1", block)
    if "*" in block:
        block = _EMPHASIS.sub(r"\1", _STRONG.sub(r"\1", block))
    if "[" in block:
        block = _CITATION.sub("", block)
    return " ".join(block.split())


def _blocks(text: str) -> Iterator[str]:
    """Runs of lines of one indentation; a list item or parameter takes its hanging lines with it."""
    lines: list[str] = []
    indent = -1
    hanging = False
    for raw in text.expandtabs().split("\n"):
        line = raw.strip()
        depth = len(raw) - len(raw.lstrip())
        if line and _UNDERLINE.match(line):
            lines = []  # the line above is a heading
            continue
        item = _BULLET.match(line) or _DIRECTIVE.match(line)
        begins = bool(item) or line.startswith((">>>", "..")) or _PARAMETER.match(line) is not None
        if lines and hanging and depth > indent and not begins:
            indent = depth
        hanging = hanging and not lines
        if lines and (not line or depth != indent or begins):
            yield " ".join(lines)
            lines = []
        if not line:
            continue
        if not lines:
            indent, hanging = depth, begins
            if item:
                line = line[item.start(1) if item.re is _DIRECTIVE else item.end() :].strip()
        lines.append(line)
    if lines:
        yield " ".join(lines)
