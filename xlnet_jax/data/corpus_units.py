"""One unit of work of the corpus: some text in, one shard (and its held-out part) out."""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from xlnet_jax.data.line_rules import LineRules, Stream
from xlnet_jax.data.normalization import Normalization, changed_code_points
from xlnet_jax.data.shard_writer import ShardBuffer, token_dtype
from xlnet_jax.data.storage import size_of
from xlnet_jax.data.text_blocks import Block, Stretch, TextOptions
from xlnet_jax.data.text_sources import read_blocks
from xlnet_jax.data.tokenizer import Tokenizer

HELDOUT = "heldout"
SHARD_PREFIX = "shard-"
COUNTS = (
    "text_bytes",
    "lines",
    "blank_lines",
    "lines_without_pieces",
    "documents_without_text",
    "unknown_pieces",
    "code_points",
    "changed_code_points",
)
_GOLDEN = 0.6180339887498949  # spreads the held-out documents of short units

_SHARD_JSON = re.compile(rf"{SHARD_PREFIX}(\d{{5,}})(?:-(\d{{3,}}))?\.json")


@dataclasses.dataclass(frozen=True)
class UnitSettings:
    """Everything a worker needs besides its unit."""

    output_dir: str
    model_path: str
    model_sha256: str
    normalization: Normalization
    use_eod: bool
    line_rules: str
    text: TextOptions
    heldout_every: int
    unit_bytes: int
    num_threads: int = 1


@functools.lru_cache(maxsize=1)
def _tokenizer(model_path: str, model_sha256: str, normalization: Normalization) -> Tokenizer:
    """Kept from unit to unit; the checksum tells it from what lay at this path before."""
    del model_sha256
    return Tokenizer(model_path, normalization)


def shard_name(unit: int, part: int) -> str:
    """`shard-00012`, and `shard-00012-001` on for what a large .gz file holds beyond one shard."""
    return f"{SHARD_PREFIX}{unit:05d}" + (f"-{part:03d}" if part else "")


def _shards(folder: epath.Path) -> list[tuple[int, int, epath.Path]]:
    matches = ((_SHARD_JSON.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), int(match[2] or 0), path) for match, path in matches if match)


def read_facts(folder: epath.Path) -> list[dict[str, Any]]:
    """What the .json of each shard says, in the order of the shards; `name` is added."""
    return [
        {"name": shard_name(unit, part), **json.loads(path.read_text())}
        for unit, part, path in _shards(folder)
    ]


def finished_units(folder: epath.Path) -> set[int]:
    """The units of which all shards are there, each file as long as its .json says."""
    last, damaged = set(), set()
    for unit, _, path in _shards(folder):
        facts = json.loads(path.read_text())
        if facts["is_last"]:
            last.add(unit)
        for suffix, count, dtype in (
            ("tokens", facts["tokens"], facts["dtype"]),
            ("starts", facts["sentences"], facts["starts_dtype"]),
        ):
            file = path.with_suffix(f".{suffix}")
            if not file.exists() or size_of(file) != count * np.dtype(dtype).itemsize:
                damaged.add(unit)
    return last - damaged


def do_unit(
    settings: UnitSettings,
    number: int,
    unit: Sequence[Stretch],
    advance: Callable[[int, int], None],
) -> None:
    """Does one unit; `advance(size read, tokens)` is called as it goes on."""
    _Unit(settings, number, unit, advance).run()


class _Unit:
    def __init__(
        self,
        settings: UnitSettings,
        number: int,
        unit: Sequence[Stretch],
        advance: Callable[[int, int], None],
    ):
        self.settings, self.number, self.unit, self.advance = settings, number, unit, advance
        self.tokenizer = _tokenizer(
            settings.model_path, settings.model_sha256, settings.normalization
        )
        self.counts = dict.fromkeys(COUNTS, 0)
        self.part = 0
        self.part_bytes = 0
        self.last_document = -1
        self.folder = epath.Path(settings.output_dir)
        self._start_shard()

    def _start_shard(self) -> None:
        dtype = token_dtype(self.tokenizer.vocab_size)
        self.train, self.heldout = ShardBuffer(dtype), ShardBuffer(dtype)
        self.part_bytes = 0

    def run(self) -> None:
        document = 0
        for stretch in self.unit:
            rules = LineRules(
                "fixed" if stretch.kind in ("jsonl", "tfds") else self.settings.line_rules,
                use_eod=self.settings.use_eod,
                eod=self.tokenizer.special.eod,
                first_document=document,
            )
            for block in read_blocks(stretch, self.settings.text):
                stream = self._encode(rules, stretch, block)
                self.part_bytes += block.text_bytes
                self._add(stream)
                self.advance(block.consumed, len(stream.tokens))
            self._add(rules.finish(ends_document=stretch.ends_file))
            document = rules.next_document
        self._write_shard(is_last=True)

    def _encode(self, rules: LineRules, stretch: Stretch, block: Block) -> Stream:
        lines = block.lines
        blank = np.fromiter((not line or line.isspace() for line in lines), bool, len(lines))
        texts = [line for line, is_blank in zip(lines, blank.tolist(), strict=True) if not is_blank]
        if stretch.kind == "ids":
            ids, lengths = self._read_ids(texts, stretch, block)
        else:
            if not self.settings.normalization.collapse_whitespace:
                texts = [text.strip() for text in texts]
            clean = self.settings.normalization.clean_lines(texts)
            ids, lengths = self.tokenizer.encode_batch(
                clean, is_clean=True, num_threads=self.settings.num_threads
            )
            if self.settings.normalization.lower:  # asked for, and so not counted as a change
                texts = [text if text.isascii() else text.lower() for text in texts]
            self.counts["changed_code_points"] += changed_code_points(texts, clean)
            self.counts["code_points"] += sum(map(len, texts))
        counts = self.counts
        counts["text_bytes"] += block.text_bytes
        if stretch.kind in ("jsonl", "tfds"):
            # Blank lines are ours there: one after each document.
            counts["documents_without_text"] += int((blank & np.r_[True, blank[:-1]]).sum())
        else:
            counts["blank_lines"] += int(blank.sum())
        counts["lines"] += len(lines)
        counts["lines_without_pieces"] += int((lengths == 0).sum())
        counts["unknown_pieces"] += int((ids == self.tokenizer.special.unk).sum())
        return rules.add(blank, ids, lengths)

    def _read_ids(
        self, texts: Sequence[str], stretch: Stretch, block: Block
    ) -> tuple[np.ndarray, np.ndarray]:
        where = f"{stretch.path}: in the lines from byte {block.offset} on"
        try:
            rows = [np.array(text.split(), np.int64) for text in texts]
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{where}: wanted ids ({error}); --text_format=ids") from None
        lengths = np.array([len(row) for row in rows], np.int64)
        ids = np.concatenate([*rows, np.zeros(0, np.int64)])
        wrong = ids[(ids < 0) | (ids >= self.tokenizer.vocab_size)]
        if len(wrong):
            raise ValueError(
                f"{where}: id {wrong[0]} is not in the vocabulary of {self.tokenizer.vocab_size} "
                "(--spiece_model)"
            )
        return ids.astype(np.int32), lengths

    def _add(self, stream: Stream) -> None:
        for part in self._cut(stream):
            if not self.settings.heldout_every:
                self.train.add(part)
                continue
            every = self.settings.heldout_every
            phase = (every // 2 + self.number * round(every * _GOLDEN)) % every
            chosen = part.documents % every == phase
            self.train.add(part, ~chosen)
            self.heldout.add(part, chosen)

    def _cut(self, stream: Stream) -> Iterator[Stream]:
        """Starts another shard where a unit turns out far larger than planned (.gz files)."""
        if self.part_bytes < 2 * self.settings.unit_bytes or not len(stream.lengths):
            yield stream
        else:
            before = np.r_[self.last_document, stream.documents[:-1]]
            places = np.flatnonzero(stream.documents != before)
            if not len(places) and self.part_bytes >= 3 * self.settings.unit_bytes:
                places = np.flatnonzero(stream.starts)
            if len(places):
                yield _runs(stream, 0, int(places[0]))
                self._write_shard(is_last=False)
                yield _runs(stream, int(places[0]), len(stream.lengths))
            else:
                yield stream
        if len(stream.documents):
            self.last_document = int(stream.documents[-1])

    def _write_shard(self, *, is_last: bool) -> None:
        facts = {
            "is_last": is_last,
            "sources": [[s.path, s.begin, s.end] for s in self.unit],
            "counts": self.counts if is_last else {},
        }
        name = shard_name(self.number, self.part)
        if self.settings.heldout_every:  # first, because the other one says that both are there
            self.heldout.write(self.folder / HELDOUT, name, facts)
        self.train.write(self.folder, name, facts)
        self.part += 1
        self._start_shard()


def _runs(stream: Stream, begin: int, end: int) -> Stream:
    first, last = int(stream.lengths[:begin].sum()), int(stream.lengths[:end].sum())
    return Stream(
        stream.tokens[first:last],
        stream.lengths[begin:end],
        stream.starts[begin:end],
        stream.documents[begin:end],
        stream.is_eod[begin:end],
    )
