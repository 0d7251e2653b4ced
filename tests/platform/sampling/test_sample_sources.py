"""Sources: one for each line of a file, whatever stands on it."""

import json
from pathlib import Path

import pytest
from small_artefact import small_tokenizer

from elf_platform.sampling.sources import digest, encode_sources, read_sources


def test_every_line_is_a_source_and_none_is_shifted(tmp_path: Path) -> None:
    path = tmp_path / "sources.txt"
    path.write_bytes("\ufeffeins zwei\r\n\n  \ndrei\x0bvier\u2028fünf\n\nsechs".encode())
    assert read_sources(path, "source") == ["eins zwei", "", "  ", "drei\x0bvier\u2028fünf", "", "sechs"]
    path.write_bytes(b"a\n\n")
    assert read_sources(path, "source") == ["a", ""], "the last line's end begins no line"


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "sources.jsonl"
    path.write_text(json.dumps({"de": "ein\nHaus", "en": "a house"}) + "\n\n" + json.dumps({"de": "", "en": "nothing"}) + "\n")
    assert read_sources(path, "de") == ["ein\nHaus", "", ""]
    for line, match in (
        ('{"en": "a"}', r"line 1 has no 'de': it has en; name the right one with --source_column"),
        ("[1]", "it has no names, as it is no object"), ('{"de": 3}', "has int under 'de', but a source is a string"),
        ('{"de": "', "line 1 is not JSON"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(ValueError, match=match):
            read_sources(path, "de")


def test_files_that_are_no_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are no sources at"):
        read_sources(tmp_path / "none.txt", "source")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_sources(tmp_path / "empty.txt", "source")
    (tmp_path / "latin.txt").write_bytes("fünf\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_sources(tmp_path / "latin.txt", "source")


def test_long_sources_are_cut_and_told_or_refused_under_strict() -> None:
    tokenizer = small_tokenizer()
    texts = ["sun", "", "the river and the road and the sun", " \t"]
    lengths = [len(ids) for ids in tokenizer.encode_batch([text.strip() for text in texts])]
    assert lengths[2] > 5 > lengths[0]
    sources = encode_sources(texts, tokenizer, limit=5, strict=False, where="FILE")
    assert [source.text for source in sources] == texts, "as given, to be found again"
    assert [len(source.tokens) for source in sources] == [lengths[0], 0, 5, 0]
    assert [source.truncated for source in sources] == [False, False, True, False]
    assert list(sources[2].tokens) == tokenizer.encode_batch([texts[2]])[0][:5]
    with pytest.raises(ValueError, match=rf"FILE, line 3 has {lengths[2]} tokens, but the model takes at most 5, and --strict"):
        encode_sources(texts, tokenizer, limit=5, strict=True, where="FILE")
    encode_sources(texts, tokenizer, limit=lengths[2], strict=True, where="FILE")


def test_the_digest_is_of_the_list() -> None:
    assert digest(["a", "b"]) == digest(("a", "b"))
    assert len({digest(texts) for texts in (["a", "b"], ["b", "a"], ["a\nb"], ["ab"], ["a", "b", ""])}) == 5
