"""Text to token ids and back: a thin layer over the `tokenizers` library that fixes what this project relies on.

Special tokens have known ids, text can never produce a padding or end-of-text id by itself, nothing is truncated or padded behind
the caller's back, and a fingerprint says whether two tokenizers are the same.
"""

import hashlib
import itertools
import json
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from elf.data.hub import hub_offline, hub_reachable
from elf.files import write_text

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "<mask>")
"""Special tokens of a trained tokenizer; their ids are their places here."""

_PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<PAD>", "<|finetune_right_pad_id|>")
_EOS_NAMES = ("</s>", "<|endoftext|>", "<eos>", "[EOS]", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "[SEP]")
_UNK_NAMES = ("<unk>", "[UNK]")
_MASK_NAMES = ("<mask>", "[MASK]", "<|mask|>", "<extra_id_0>")
_ALPHABET = 256  # byte-level tokenizers hold a token for every byte, so no text is unknown to them
LEAST_VOCABULARY = len(SPECIAL_TOKENS) + _ALPHABET
"""Ids of the smallest tokenizer that can be trained."""
_HUB_PREFIX = "hub:"

_LINE_ENDS = "\n\x0b\x0c\x1c\x1d\x1e\x85"  # with \r, what Unicode and Python call line ends, but for U+2028 and U+2029, which stay
_SPACED = str.maketrans(dict.fromkeys(_LINE_ENDS, "\n") | {"\x1f": " "})
_SEPARATING = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
_REMOVED = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # control characters that separate nothing
_MARK = "\ufeff"  # a byte order mark: files begin with it, and what was joined from files holds it anywhere
_TRAILING = re.compile(r"(?<![ \t])[ \t]++(?=\n)")  # looking from the start of a run alone, a long one costs its length once
_LONGEST_RUN = 256
_LONGEST_WORD = 256  # characters of a word that a tokenizer is trained on
_RUN = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}+|\s{{{_LONGEST_WORD + 1},}}+")  # quickly says of ordinary text that there is nothing to cut
_WORD = re.compile("|".join(rf"{kind}{{{_LONGEST_WORD + 1},}}+" for kind in (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)", r"\s")))
_HEARING_S = 0.5  # a join without a limit is not interrupted by signals everywhere
# Combining characters are put in order in time that is quadratic in the length of their run (40,000: 1.3 s).
_COMBINING = re.compile(rf"[^\w\s\x00-\x7f]{{{_LONGEST_RUN},}}")


def well_formed(text: str) -> str:
    """The text as every reader takes it in: the two halves of a surrogate pair become their character, a half alone U+FFFD.

    JSON can name such halves and a file name or command line can hold them; no file, table or tokenizer takes them.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def normalise(text: str) -> str:
    """Well-formed text in Unicode NFC, line ends as LF, no control characters but newline and tab, no spaces at line ends.

    Controls that separate become white space: vertical tab, form feed, NEL and FS to RS end a line, US is a space; others vanish, and so
    do byte order marks. A run of 256 and more symbols and combining characters stays as it is. Applying it twice
    changes nothing more. The result always encodes as UTF-8.
    """
    text = well_formed(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _SEPARATING.search(text):
        text = text.translate(_SPACED)
    text = _REMOVED.sub("", text)
    if not text.isascii():
        text = _composed(text.replace(_MARK, ""))
    if " \n" in text or "\t\n" in text:
        text = _TRAILING.sub("", text)
    return text.rstrip(" \t")


def _composed(text: str) -> str:
    pieces, start = [], 0
    for run in _COMBINING.finditer(text):
        pieces += [unicodedata.normalize("NFC", text[start : run.start()]), run.group()]
        start = run.end()
    return "".join([*pieces, unicodedata.normalize("NFC", text[start:])])


class Tokenizer:
    """A `tokenizers.Tokenizer` with known special tokens.

    vocab_size is the number of ids that can occur, the largest id plus one. unk_id and mask_id are None where the vocabulary has
    no such token. Pickles by its JSON, so it can travel to workers.

    Raises ValueError when the vocabulary has no padding or no end-of-text token under a known name.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, origin: str = "the tokenizer") -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # "</s>" in a document is five characters of text, not its end
        self._backend = backend
        vocabulary = backend.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise ValueError(f"{origin} has an empty vocabulary, so it cannot encode anything; pass another tokenizer.json")
        self.vocab_size = max(vocabulary.values()) + 1
        self.pad_id = _required(vocabulary, _PAD_NAMES, "padding", origin)
        self.eos_id = _required(vocabulary, _EOS_NAMES, "end-of-text", origin)
        self.unk_id = _first(vocabulary, _UNK_NAMES)
        self.mask_id = _first(vocabulary, _MASK_NAMES)
        self._disarm = self._find_leaks()

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The library's object, for what this class does not cover."""
        return self._backend

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens.

        Runs in the calling thread or in many as the library's TOKENIZERS_PARALLELISM says; workers that share a machine set it
        to false.
        """
        if self._disarm:
            texts = [self._disarm(text) for text in texts]
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self._backend.decode(ids, skip_special_tokens=True))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the tokenizer's JSON with sorted keys: equal for tokenizers that encode alike."""
        canonical = json.dumps(json.loads(self._backend.to_str()), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write tokenizer.json to a file, or into an existing folder, by rename; returns the file's path."""
        target = Path(path)
        if target.is_dir():
            target = target / "tokenizer.json"
        write_text(target, self._backend.to_str(pretty=True))
        return target

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer.json, or the one in a folder.

        Raises FileNotFoundError when there is none, and ValueError when it is not a tokenizer or lacks a special token.
        """
        file = Path(path).expanduser()
        if file.is_dir():
            file = file / "tokenizer.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no tokenizer at {file}; pass the path of a tokenizer.json or of the folder that holds one, "
                "bpe or unigram to train one, or hub:NAME to fetch one"
            )
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not a tokenizer.json: it is not UTF-8 text ({error}); fetch it again") from error
        return cls.from_json(text, origin=str(file))

    @classmethod
    def from_json(cls, text: str, *, origin: str = "the tokenizer") -> "Tokenizer":
        """A tokenizer from the text of a tokenizer.json. Raises ValueError as `load` does."""
        try:
            json.loads(text)
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(
                f"{origin} is not a tokenizer.json that the tokenizers library {tokenizers.__version__} can read ({error}); "
                "fetch or save the file again"
            ) from error
        return cls(backend, origin=origin)

    def __reduce__(self) -> tuple[Callable[[str], "Tokenizer"], tuple[str]]:
        return Tokenizer.from_json, (self._backend.to_str(),)

    def _find_leaks(self) -> Callable[[str], str] | None:
        """A function that breaks the special tokens' names in a text where the model's own vocabulary would match them.

        Unigram vocabularies hold the names as ordinary pieces, so T5 would encode a literal "</s>" as the end of the text.
        """
        special = {token.content: i for i, token in self._backend.get_added_tokens_decoder().items() if token.special}
        leaks = [name for name, i in special.items() if i in self._backend.encode(name, add_special_tokens=False).ids]
        if not leaks:
            return None
        starts = {name[0] for name in leaks}
        pattern = re.compile("|".join(re.escape(name) for name in sorted(leaks, key=len, reverse=True)))

        def disarm(text: str) -> str:
            if not any(start in text for start in starts):
                return text
            return pattern.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)

        return disarm


def train_tokenizer(texts: Iterator[str], kind: Literal["bpe", "unigram"], vocab_size: int) -> Tokenizer:
    """Train a byte-level tokenizer: no text is unknown to it, and decoding gives back exactly what was encoded.

    The same texts in the same order give the same JSON. With little text the vocabulary stays smaller than asked for.

    Raises ValueError when vocab_size has no room for the special tokens and the bytes, or when there is no text.
    """
    if vocab_size < LEAST_VOCABULARY:
        raise ValueError(
            f"tokenizer.vocab_size is {vocab_size}, but a byte-level tokenizer needs at least {LEAST_VOCABULARY}: {_ALPHABET} bytes and "
            f"{len(SPECIAL_TOKENS)} special tokens; use {LEAST_VOCABULARY} or more"
        )
    first = next((text for text in texts if text), None)
    if first is None:
        raise ValueError("there is no text to train a tokenizer on: the corpus holds no readable document; check data.paths")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer: trainers.Trainer
    if kind == "bpe":
        backend = tokenizers.Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=alphabet,
            show_progress=False,
        )
    elif kind == "unigram":
        backend = tokenizers.Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            unk_token="<unk>",
            initial_alphabet=alphabet,
            show_progress=False,
        )
    else:
        raise ValueError(f"a tokenizer of kind {kind!r} cannot be trained; the kinds are bpe and unigram")
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    _train_alone(backend, trainer, first, texts)
    return Tokenizer(_settled(backend) if kind == "unigram" else backend)


def load_tokenizer(source: str | Path) -> Tokenizer:
    """A tokenizer from a tokenizer.json, the folder that holds one, or hub:NAME on the Hugging Face hub.

    Raises FileNotFoundError or ValueError with what to do instead.
    """
    if isinstance(source, str) and source.startswith(_HUB_PREFIX):
        return Tokenizer.load(_fetch(source.removeprefix(_HUB_PREFIX)))
    return Tokenizer.load(source)


def _settled(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A trained Unigram tokenizer with what differs from run to run taken out.

    The trainer walks hash maps: scores differ in the last bits, and bytes that the text does not hold get the lowest score plus
    0.0001, 0.0002 and so on in a random order. Scores are rounded, those bytes share the lowest score, and ids follow (score, piece).
    """
    content = json.loads(backend.to_str())
    special, pieces = content["model"]["vocab"][: len(SPECIAL_TOKENS)], content["model"]["vocab"][len(SPECIAL_TOKENS) :]
    lowest = min(score for _, score in pieces)
    unseen = lowest + 0.0001 * (_ALPHABET + 1)
    scores = {piece: round(lowest if len(piece) == 1 and score < unseen else score, 4) for piece, score in pieces}
    content["model"]["vocab"] = special + sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def _bounded(texts: Iterator[str]) -> Iterator[str]:
    """The texts with words of more than ``_LONGEST_WORD`` characters cut into several, other words and texts as they are.

    Training a BPE takes time that is quadratic in the longest word; a word is letters, digits, symbols or spaces in a row.
    """
    for text in texts:
        begin = 0
        for run in _RUN.finditer(text):
            for word in _WORD.finditer(text, run.start(), run.end()):
                for cut in range(word.start() + _LONGEST_WORD, word.end(), _LONGEST_WORD):
                    yield text[begin:cut]
                    begin = cut
        yield text[begin:]


def _train_alone(backend: tokenizers.Tokenizer, trainer: trainers.Trainer, first: str, rest: Iterator[str]) -> None:
    """Train in a thread, so that the main thread hears signals while the library works; it is left behind when one ends the job."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def texts() -> Iterator[str]:
        for text in _bounded(itertools.chain([first], rest)):
            if ended.is_set():
                return
            yield text

    def train() -> None:
        try:
            backend.train_from_iterator(texts(), trainer=trainer)
        except BaseException as error:
            failures.append(error)

    # Sums of floats in the order in which threads finish would differ from run to run.
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    thread = threading.Thread(target=train, name="tokenizer training", daemon=True)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(_HEARING_S)
        if failures:
            raise failures[0]
    finally:
        ended.set()
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _fetch(name: str) -> str:
    advice = (
        "download its tokenizer.json on a machine that can reach the hub and pass the path of the file instead, "
        "or use bpe or unigram to train one"
    )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ValueError(f"hub:{name} needs the package huggingface_hub; install it, or {advice}") from error
    reachable = hub_reachable()
    try:
        return str(hf_hub_download(name, "tokenizer.json", local_files_only=not reachable))
    except Exception as error:  # network, permission and naming errors of several libraries
        if reachable:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        else:
            why = "HF_HUB_OFFLINE is set" if hub_offline() else "the hub does not answer"
            why += ", and it is not in the local cache"
        raise ValueError(f"the tokenizer hub:{name} could not be fetched: {why}; {advice}") from error


def _first(vocabulary: dict[str, int], names: Sequence[str]) -> int | None:
    return next((vocabulary[name] for name in names if name in vocabulary), None)


def _required(vocabulary: dict[str, int], names: Sequence[str], role: str, origin: str) -> int:
    found = _first(vocabulary, names)
    if found is None:
        raise ValueError(
            f"{origin} has no {role} token: none of {', '.join(names)} is in its vocabulary; add one with "
            f"tokenizers.Tokenizer.add_special_tokens([{names[0]!r}]) and save the file, or train a tokenizer (bpe or unigram)"
        )
    return found
