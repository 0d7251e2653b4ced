"""The tokenizer: lossless, deterministic, never ends a text by itself, refuses what it cannot use."""

import json
import os
import pickle
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

import elf
from elf.data.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer, normalise, train_tokenizer

Kind = Literal["bpe", "unigram"]
KINDS: tuple[Kind, ...] = ("bpe", "unigram")
SIZE = 330


def texts() -> Iterator[str]:
    """Made-up words with repeated parts, for the trainers to find."""
    heads = ("river", "clock", "lamp", "morn", "carr", "repeat", "harbour", "forg", "answ", "cross", "col", "song")
    tails = ("", "ing", "ers", "ed", "ful", "ly", "ness", "ation")
    for i in range(300):
        words = (heads[(i * 5 + j * j) % 12] + tails[(i + 3 * j) % 8] for j in range(20))
        yield " ".join(words).capitalize() + f" {i} times.\nIt is so.\n"


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(texts(), request.param, SIZE)


def test_special_tokens_have_known_ids(trained: Tokenizer) -> None:
    assert (trained.pad_id, trained.eos_id, trained.unk_id, trained.mask_id) == (0, 1, 2, 3)
    assert [trained.backend.id_to_token(i) for i in range(4)] == list(SPECIAL_TOKENS)
    assert trained.vocab_size == len(trained.backend.get_vocab()) <= SIZE


@given(text=st.text(max_size=80))
@example(text="  two  spaces\n\n\ttab </s> 🎉 café")
@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_gives_back_any_text(kind: Kind, text: str) -> None:
    tokenizer = _cached(kind)
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.decode(ids) == text
    assert all(len(SPECIAL_TOKENS) <= i < tokenizer.vocab_size for i in ids)


_CACHE: dict[Kind, Tokenizer] = {}


def _cached(kind: Kind) -> Tokenizer:
    if kind not in _CACHE:
        _CACHE[kind] = train_tokenizer(texts(), kind, SIZE)
    return _CACHE[kind]


def test_training_pays(trained: Tokenizer) -> None:
    text = "".join(texts())
    assert len(trained.encode_batch([text])[0]) < len(text) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_text_gives_the_same_tokenizer_in_every_process(kind: Kind) -> None:
    # Hash seeds differ between processes, and the Unigram trainer's own output with them.
    script = (
        "from elf.data.tokenizer import train_tokenizer\n"
        "words = [f'{a}{b}' for a in 'bdfgklmn' for b in ('ater', 'ing', 'oud', 'est', 'a', 'ock')]\n"
        "texts = (' '.join(words[(i * j) % len(words)] for j in range(1, 30)) for i in range(300))\n"
        f"print(train_tokenizer(texts, {kind!r}, 330).fingerprint)"
    )
    root = str(Path(elf.__file__).parents[1])
    found = set()
    for threads in ("1", "2", "2"):
        environment = os.environ | {"PYTHONPATH": root, "RAYON_NUM_THREADS": threads}
        environment.pop("TOKENIZERS_PARALLELISM", None)
        found.add(subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


def test_training_leaves_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    train_tokenizer(texts(), "bpe", 300)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    train_tokenizer(texts(), "bpe", 300)
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_saving_and_pickling_keep_everything(trained: Tokenizer, tmp_path: Path) -> None:
    assert trained.save(tmp_path) == tmp_path / "tokenizer.json"
    trained.save(tmp_path / "other.json")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["other.json", "tokenizer.json"]
    sentence = "The clock </s> repeats."
    copies = (Tokenizer.load(tmp_path), load_tokenizer(str(tmp_path / "other.json")), pickle.loads(pickle.dumps(trained)))
    for copy in copies:
        assert copy.fingerprint == trained.fingerprint
        assert copy.encode_batch([sentence]) == trained.encode_batch([sentence])


def test_the_fingerprint_tells_tokenizers_apart_and_ignores_layout(trained: Tokenizer) -> None:
    content = json.loads(trained.backend.to_str())
    again = Tokenizer.from_json(json.dumps(content, sort_keys=True, indent=3))
    assert again.fingerprint == trained.fingerprint
    assert train_tokenizer(texts(), "bpe", SIZE - 20).fingerprint != trained.fingerprint


def test_truncation_and_padding_of_a_file_are_switched_off(trained: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(trained.backend.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=5)
    ids = Tokenizer.from_json(backend.to_str()).encode_batch(["The river number one carries the morning", ""])
    assert len(ids[0]) > 5 and ids[1] == []


def metaspace(vocabulary: list[tuple[str, float]], special: list[str]) -> str:
    """A tokenizer.json like T5's: Unigram whose own vocabulary holds the special tokens."""
    backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(special)
    return str(backend.to_str())


T5_LIKE = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in "abcdsep/<>"), ("<extra_id_0>", 0.0)]


def test_a_text_cannot_name_a_special_token() -> None:
    tokenizer = Tokenizer.from_json(metaspace(T5_LIKE, ["<pad>", "</s>", "<unk>", "<extra_id_0>"]))
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 2, 14)
    assert tokenizer.vocab_size == 15
    ids, plain = tokenizer.encode_batch(["a </s> b <pad>", "a b"])
    assert not {0, 1, 14} & set(ids)
    assert [tokenizer.backend.id_to_token(i) for i in plain] == ["▁", "a", "▁", "b"]


def test_the_vocabulary_size_is_the_largest_id_plus_one() -> None:
    vocabulary = {"<pad>": 0, "</s>": 1, "a": 2, "b": 40}
    tokenizer = Tokenizer(tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="a")))
    assert tokenizer.vocab_size == 41
    assert tokenizer.unk_id is None and tokenizer.mask_id is None


@pytest.mark.parametrize(("left_out", "role"), [("<pad>", "padding"), ("</s>", "end-of-text")])
def test_a_missing_special_token_is_refused(left_out: str, role: str) -> None:
    vocabulary = {name: i for i, name in enumerate(("<pad>", "</s>", "a")) if name != left_out}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    with pytest.raises(ValueError, match=f"no {role} token.*add_special_tokens"):
        Tokenizer(backend)


def test_files_that_are_no_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*bpe or unigram"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "mod')
    with pytest.raises(ValueError, match=r"is not a tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"is not a tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_tokenizer(tmp_path)


def test_training_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match=r"vocab_size is 100.*at least 260"):
        train_tokenizer(texts(), "bpe", 100)
    with pytest.raises(ValueError, match="no text to train"):
        train_tokenizer(iter(["", ""]), "unigram", 300)
    assert train_tokenizer(iter(["ab ab"]), "bpe", 5000).vocab_size < 300


def test_the_hub_is_refused_in_seconds_when_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(ValueError, match="hub:nobody/nothing could not be fetched: HF_HUB_OFFLINE is set"):
        load_tokenizer("hub:nobody/nothing")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\r\nb\rc\n", "a\nb\nc\n"),
        ("cafe\u0301", "café"),
        ("a\x00b\x1bc\x7f\x9fd\te", "abcd\te"),
        ("a\x0bb\x0cc\x85d\x1ce\x1df\x1eg\x1fh\u2028i\u2029j\u00a0k", "a\nb\nc\nd\ne\nf\ng h\u2028i\u2029j\u00a0k"),
        ("\ufeffone\n\x00\ufeff\ufefftwo\ufeff", "one\ntwo"),
        ("one  \ntwo\t\n  three \t", "one\ntwo\n  three"),
        ("lone \ud83d half", "lone \ufffd half"),
        ("\ude00 \ud83d\ude00", "\ufffd 😀"),
        ("ﬁne ²", "ﬁne ²"),
    ],
)
def test_normalise(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


def test_a_long_run_of_spaces_is_normalised_in_time() -> None:
    """Looked at from each of its spaces anew, this run would cost some minutes."""
    inner = "a" + " " * 200_000 + "b"
    assert normalise(inner + " \t\n") == inner + "\n"


def test_a_long_run_of_combining_marks_is_normalised_in_time() -> None:
    """Put in order as one run, these take hours."""
    marks = "\u0301\u0316" * 1_000_000
    assert normalise(f"cafe\u0301 a{marks}b e\u0301") == f"café a{marks}b é"


def test_no_document_can_hold_what_stands_between_source_and_target() -> None:
    everything = "".join(map(chr, range(0x3000)))
    assert "\x1e" in everything and "\x1e" not in normalise(everything)
    words = re.split("[\x0b\x0c\x1c-\x1f\x85\r\n\t ]+", everything)
    kept = normalise(everything).split()
    assert len(kept) >= len([word for word in words if normalise(word)]), "what separated words separates them still"


ODD = st.sampled_from("\r\n \t\x00\u0301e\x0b\x1f\x85\ufeff")


@given(text=st.text(alphabet=st.one_of(st.characters(exclude_categories=()), ODD), max_size=30))
@settings(max_examples=300, deadline=None)
def test_normalise_is_settled_after_one_pass(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    once.encode()
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in once)


def test_one_endless_word_does_not_hold_the_training() -> None:
    """As one word these take hours; what is ordinary is trained on as it was."""
    letters = "abcdefghij"
    word = "".join(letters[(i * i + i // 7) % 10] for i in range(300_000))
    began = time.process_time()
    tokenizer = train_tokenizer(iter([word, "=" * 300_000, " " * 300_000, *texts()]), "bpe", SIZE)
    assert time.process_time() - began < 20
    assert tokenizer.decode(tokenizer.encode_batch([word])[0]) == word
    ordinary = ["a" * 256, "https://example.org/" + "path/" * 100, "0" * 256 + "x", "漢字。" * 200, *texts()]
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(ordinary, trainer=trainer)
    assert train_tokenizer(iter(ordinary), "bpe", SIZE).backend.get_vocab() == backend.get_vocab()


def test_a_signal_is_heard_while_a_tokenizer_is_trained() -> None:
    script = (
        "import os, signal\n"
        "from elf.data.tokenizer import train_tokenizer\n"
        "def stop(*_):\n"
        "    print('heard', flush=True)\n"
        "    raise SystemExit(7)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "letters = os.urandom(2_000_000).hex().translate(str.maketrans('0123456789', 'ghijklmnop'))\n"
        "def texts():\n"
        "    yield ' '.join(letters[i : i + 250] for i in range(0, len(letters), 250))\n"
        "    print('read', flush=True)\n"
        "train_tokenizer(texts(), 'bpe', 30000)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(elf.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None and job.stdout.readline() == "read\n"
        time.sleep(0.5)  # into the part that the library does alone
        began = time.monotonic()
        job.terminate()
        assert job.stdout.readline() == "heard\n"
        assert time.monotonic() - began < 3  # the training goes on for more than twice that
        assert job.wait(60) == 7


def test_what_the_reader_of_the_texts_raises_reaches_the_caller() -> None:
    def broken() -> Iterator[str]:
        yield "some words"
        raise ValueError("the disk is full")

    with pytest.raises(Exception, match="the disk is full"):
        train_tokenizer(broken(), "bpe", SIZE)
