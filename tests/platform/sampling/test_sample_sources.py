"""Sources: one for each line of a file, whatever stands on it."""

import json
from pathlib import Path

import pytest
from small_artefact import small_tokenizer

from elf_platform.sampling.sources import digest, encode_sources, read_sources


def test_every_line_is_a_source_and_none_is_shifted(tmp_path: Path) -> None:
    path = tmp_path / "sources.txt"
    path.write_bytes("\ufeffeins zwei\r\n\n  \ndrei\x0bvier\u2028fünf\n\nsechs".encode())
    assert read_sources(path) == ["eins zwei", "", "  ", "drei\x0bvier\u2028fünf", "", "sechs"]
    path.write_bytes(b"a\n\n")
    assert read_sources(path) == ["a", ""], "the last line's end begins no line"


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "sources.jsonl"
    path.write_text(json.dumps({"de": "ein\nHaus", "en": "a house"}) + "\n\n" + json.dumps({"de": "", "en": "nothing"}) + "\n")
    assert read_sources(path, "de") == ["ein\nHaus", "", ""]
    for line, match in (
        ('{"en": "a"}', r"jsonl:1 has no key 'de'; its keys are en; mend it, or name another column with --source_column"),
        ("[1]", "jsonl:1 is a JSON list, but should be an object"), ('{"de": 3}', "jsonl:1 holds a int under 'de', but should hold text"),
        ('{"de": "', "jsonl:1 is not JSON"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(ValueError, match=match):
            read_sources(path, "de")


def test_tab_separated_lines(tmp_path: Path) -> None:
    named, numbered = tmp_path / "a.tsv", tmp_path / "b.txt"
    named.write_text("en\tsource\na house\tein Haus\n\n\tleer\n")
    assert read_sources(named) == ["ein Haus", "", "leer"] and read_sources(named, "en") == ["a house", "", ""]
    numbered.write_text("a house\tein Haus\tCC-BY\r\n\r\na sea\tein Meer\r\n")
    assert read_sources(numbered, "2") == ["ein Haus", "", "ein Meer"]
    assert read_sources(numbered)[0] == "a house\tein Haus\tCC-BY", "without a column a line is the source"
    with pytest.raises(ValueError, match=r"has no column 4: its first line has 3 column\(s\).*--source_column"):
        read_sources(numbered, "4")
    with pytest.raises(ValueError, match=r"has no column 'source'; its first line names a house"):
        read_sources(numbered.rename(tmp_path / "b.tsv"))
    named.write_text("en\tde\na house\n")
    with pytest.raises(ValueError, match=r"a\.tsv:2 has 1 column\(s\), but should have 2"):
        read_sources(named, "de")
    named.write_text("en\tde\n")
    with pytest.raises(ValueError, match=r"a\.tsv is empty: it holds no sources"):
        read_sources(named, "de")


def test_files_that_are_no_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are no sources at"):
        read_sources(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_sources(tmp_path / "empty.txt")
    (tmp_path / "pairs.jsonl.gz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pairs\.jsonl\.gz cannot be read as jsonl in gzip: Truncated"):
        read_sources(tmp_path / "pairs.jsonl.gz")
    (tmp_path / "pairs.docx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"--sources has .*pairs\.docx.*1 of no known type.*the known types are \.txt, \.tsv"):
        read_sources(tmp_path / "pairs.docx")
    (tmp_path / "latin.txt").write_bytes("fünf\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_sources(tmp_path / "latin.txt")


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
    with pytest.raises(ValueError, match=rf"FILE: source 3 has {lengths[2]} tokens, but the model takes at most 5, and --strict"):
        encode_sources(texts, tokenizer, limit=5, strict=True, where="FILE")
    encode_sources(texts, tokenizer, limit=lengths[2], strict=True, where="FILE")


def test_the_digest_is_of_the_list() -> None:
    assert digest(["a", "b"]) == digest(("a", "b"))
    assert len({digest(texts) for texts in (["a", "b"], ["b", "a"], ["a\nb"], ["ab"], ["a", "b", ""])}) == 5
