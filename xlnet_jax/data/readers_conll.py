"""Sentences with a tag a word, from CoNLL-style files: a word a line, blank lines in between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from xlnet_jax.data.readers_rows import Oddities, read_rows

_DOCUMENT = "-DOCSTART-"


class TaggedSentence(NamedTuple):
    """Words, and a tag for each; `tags` is None where the file has no column of tags."""

    guid: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    file: str
    line: int


def read_conll(
    path: epath.PathLike,
    split: str,
    *,
    oddities: Oddities,
    word_column: int = 0,
    tag_column: int | None = -1,
    encoding: str = "utf-8",
) -> Iterator[TaggedSentence]:
    """Sentences of a file in order, named SPLIT-NUMBER from 0; document marks are left out.

    Columns are cut at tabs if the line has one, else at runs of blanks. Tags come out as BIO: an
    entity that begins with I- (the IOB1 of CoNLL-2003's own files) is given a B-, and counted, as
    are lines with too few columns, which are dropped. `tag_column` None reads words alone.

    Raises FileNotFoundError, or ValueError naming file and line: a tag that is not O, B-X or I-X,
    a file without sentences.
    """
    name = os.fspath(path)
    columns = (word_column,) if tag_column is None else (word_column, tag_column)
    least = max([2 if len(columns) > 1 else 1, *(c + 1 if c >= 0 else -c for c in columns)])
    words: list[str] = []
    tags: list[str] = []
    count = begin = 0
    for row in read_rows(path, "tsv", encoding=encoding, keep_empty=True):
        fields = row.values if len(row.values) > 1 else " ".join(row.values).split()
        if not any(field.strip() for field in fields):
            if words:
                yield _sentence(f"{split}-{count}", words, tags, tag_column, name, begin)
                count, words, tags = count + 1, [], []
            continue
        if fields[0] == _DOCUMENT:
            continue
        if len(fields) < least:
            oddities.add(f"lines dropped, fewer than {least} columns", name, row.line)
            continue
        begin = begin if words else row.line
        words.append(fields[word_column])
        if tag_column is not None:
            tag = fields[tag_column].strip()
            tags.append(_as_bio(tag, tags[-1] if tags else "O", oddities, name, row.line))
    if words:
        yield _sentence(f"{split}-{count}", words, tags, tag_column, name, begin)
        count += 1
    if not count:
        raise ValueError(f"{name} holds no sentences")


def read_word_lines(
    path: epath.PathLike, split: str, *, encoding: str = "utf-8"
) -> Iterator[TaggedSentence]:
    """Sentences without tags, one a line, words separated by blanks; empty lines are left out.

    Raises as `read_conll` does.
    """
    name, count = os.fspath(path), 0
    for row in read_rows(path, "tsv", encoding=encoding):
        if words := " ".join(row.values).split():
            yield TaggedSentence(f"{split}-{count}", tuple(words), None, name, row.line)
            count += 1
    if not count:
        raise ValueError(f"{name} holds no sentences")


def has_tags(path: epath.PathLike, encoding: str = "utf-8") -> bool:
    """Whether the first line with text has more than a word; raises as `read_rows` does."""
    with contextlib.closing(read_rows(path, "tsv", encoding=encoding)) as rows:
        for row in rows:
            if fields := " ".join(row.values).split():
                return len(fields) > 1
    return True  # an empty file has an error of its own


def _sentence(
    guid: str, words: list[str], tags: list[str], tag_column: int | None, file: str, line: int
) -> TaggedSentence:
    known = None if tag_column is None else tuple(tags)
    return TaggedSentence(guid, tuple(words), known, file, line)


def _as_bio(tag: str, before: str, oddities: Oddities, file: str, line: int) -> str:
    kind = tag[2:]
    if tag == "O" or (tag[:2] == "B-" and kind):
        return tag
    if tag[:2] != "I-" or not kind:
        raise ValueError(
            f"{file}:{line}: the tag is {tag!r}, wanted O, B-X or I-X (config.data.tag_column)"
        )
    if before[2:] == kind:
        return tag
    oddities.add("entities that began with I-, read as B-", file, line)
    return f"B-{kind}"
