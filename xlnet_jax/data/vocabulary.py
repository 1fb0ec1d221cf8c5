"""Trains a SentencePiece vocabulary with the special symbols of the released ones.

The defaults are the `spm_train` flags of the original's README, and give the same ids 0-16:
<unk> <s> </s> <cls> <sep> <pad> <mask> <eod> <eop> . ( ) " - – £ €.
"""

import dataclasses
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence

import sentencepiece
from etils import epath
from tqdm import tqdm

from xlnet_jax.data import storage
from xlnet_jax.data.manifest import code_version
from xlnet_jax.data.normalization import Normalization, changed_code_points
from xlnet_jax.data.text_blocks import Stretch, TextOptions
from xlnet_jax.data.text_sources import find_files, read_blocks
from xlnet_jax.data.tokenizer import Tokenizer

CONTROL_SYMBOLS = ("<cls>", "<sep>", "<pad>", "<mask>", "<eod>")
# A list, never one string joined by commas: there a bare quote opens a CSV field and swallows the
# symbols after it.
USER_DEFINED_SYMBOLS = ("<eop>", ".", "(", ")", '"', "-", "–", "£", "€")
_RULES = {"reference": "nmt_nfkc", "nfkc": "nmt_nfkc", "nfc": "identity", "none": "identity"}
_ODD_SHARE = 0.01
_TOO_HIGH = re.compile(r"Vocabulary size too high \((\d+)\).*?<= (\d+)", re.DOTALL)
_TOO_LOW = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


@dataclasses.dataclass(frozen=True)
class VocabularyConfig:
    """What `xlnet-jax vocab` does; every field is a flag of the same name.

    The text comes from `input` (files, globs, folders) or `tfds`, as for the corpus, and is
    cleaned by `normalization` first. Of more than `input_sentence_size` lines a random sample is
    taken. `normalization_rule` is SentencePiece's own clean-up, which becomes part of the model:
    "auto" is nmt_nfkc (the original's) for reference and nfkc, identity for nfc and none. Lines
    over `max_sentence_bytes` are left out by SentencePiece, and counted.
    `num_threads` is not a matter of speed alone: sums, and so scores, depend on it.
    """

    input: tuple[str, ...] = ()
    output_prefix: str = ""
    tfds: str = ""
    normalization: Normalization = dataclasses.field(default_factory=Normalization)
    text: TextOptions = dataclasses.field(default_factory=TextOptions)
    vocab_size: int = 32000
    character_coverage: float = 0.99995
    model_type: str = "unigram"
    control_symbols: tuple[str, ...] = CONTROL_SYMBOLS
    user_defined_symbols: tuple[str, ...] = USER_DEFINED_SYMBOLS
    input_sentence_size: int = 10_000_000
    shuffle_input_sentence: bool = True
    max_sentence_bytes: int = 4192
    normalization_rule: str = "auto"
    byte_fallback: bool = False
    seed: int = 0
    num_threads: int = 16
    overwrite: bool = False
    progress: bool = True

    def validate(self) -> None:
        """Raises ValueError naming the flag for settings that make no sense."""
        if bool(self.input) == bool(self.tfds):
            raise ValueError("wanted either --input (files) or --tfds (a data set), and not both")
        if not self.output_prefix:
            raise ValueError(
                "--output_prefix is missing: PREFIX.model and PREFIX.vocab are written"
            )
        if self.model_type not in ("unigram", "bpe", "char", "word"):
            raise ValueError(
                f"unknown --model_type {self.model_type!r}: wanted unigram, bpe, char or word"
            )
        if not 0.9 <= self.character_coverage <= 1.0:
            raise ValueError(
                f"--character_coverage is {self.character_coverage}: wanted 0.9 to 1.0 (the share "
                "of characters that get pieces)"
            )
        missing = [s for s in CONTROL_SYMBOLS if s not in self.control_symbols]
        if missing:
            raise ValueError(f"--control_symbols lacks {', '.join(missing)}, which training needs")
        reserved = 3 + len(self.control_symbols) + len(self.user_defined_symbols)
        if self.vocab_size <= reserved:
            raise ValueError(
                f"--vocab_size is {self.vocab_size}: wanted over {reserved} (the special symbols)"
            )
        if self.max_sentence_bytes < 10:
            raise ValueError(
                f"--max_sentence_bytes is {self.max_sentence_bytes}: wanted at least 10"
            )
        if self.num_threads < 1:
            raise ValueError(f"--num_threads is {self.num_threads}: wanted at least 1")
        if self.input_sentence_size != 0 and self.input_sentence_size <= 100:
            raise ValueError(
                f"--input_sentence_size is {self.input_sentence_size}: wanted more than 100 lines,"
                " or 0 for all"
            )
        if self.seed < 0 or self.seed >= 1 << 32:
            raise ValueError(f"--seed is {self.seed}: wanted 0 to 4294967295")


def train_vocabulary(config: VocabularyConfig, report: Callable[[str], None] = print) -> epath.Path:
    """Trains a vocabulary and writes PREFIX.model, PREFIX.vocab and PREFIX.json (how it was made).

    Returns the path of the model. The same text and settings give the same bytes. Raises
    ValueError or OSError with one clear line for wrong input.
    """
    config.validate()
    paths = {end: epath.Path(f"{config.output_prefix}.{end}") for end in ("model", "vocab", "json")}
    if paths["model"].exists() and not config.overwrite:
        raise ValueError(
            f"{os.fspath(paths['model'])} exists: choose another --output_prefix, or --overwrite"
        )
    inputs, _ = _find_input(config)
    storage.make_folder(paths["model"].parent, "--output_prefix")
    sentences = _Sentences(config, inputs)
    model = _train(config, sentences)
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    rows = (
        f"{processor.IdToPiece(i)}\t{processor.GetScore(i):g}\n"
        for i in range(processor.GetPieceSize())
    )
    made = {
        "settings": dataclasses.asdict(config),
        "counts": sentences.counts,
        "code_version": code_version(),
        "sentencepiece_version": sentencepiece.__version__,
    }
    storage.write_atomic(paths["vocab"], ["".join(rows).encode()])
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    storage.write_atomic(paths["json"], [text.encode()])
    storage.write_atomic(paths["model"], [model])
    tokenizer = Tokenizer(paths["model"], config.normalization)
    report(
        f"{tokenizer.vocab_size:,} pieces from {sentences.counts['lines']:,} lines: "
        f"{os.fspath(paths['model'])}"
    )
    for line in _warnings(config, sentences.counts):
        report(line)
    return paths["model"]


def _find_input(config: VocabularyConfig) -> tuple[list[Stretch], list[str]]:
    if config.tfds:
        from xlnet_jax.data import tfds_text

        return [tfds_text.find_examples(config.tfds, config.text)[0]], []
    return find_files(config.input, config.text)


class _Sentences:
    """The cleaned lines of all inputs, with what there is to say about them."""

    def __init__(self, config: VocabularyConfig, inputs: Sequence[Stretch]):
        self.config, self.inputs = config, inputs
        self.counts = {"lines": 0, "too_long": 0, "code_points": 0, "changed_code_points": 0}
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        # SentencePiece takes an exception in here for the end of the text, or hides its type.
        try:
            yield from self._lines()
        except Exception as error:
            self.error = error
            raise

    def _lines(self) -> Iterator[str]:
        normalization, limit = self.config.normalization, self.config.max_sentence_bytes
        with tqdm(
            total=sum(stretch.size for stretch in self.inputs),
            unit=" examples" if self.config.tfds else "B",
            unit_scale=True,
            desc="vocab: reading",
            disable=not self.config.progress,
        ) as bar:
            for stretch in self.inputs:
                for block in read_blocks(stretch, self.config.text):
                    lines = [line for line in block.lines if line and not line.isspace()]
                    clean = normalization.clean_lines(lines)
                    if normalization.lower:
                        lines = [line.lower() for line in lines]
                    self.counts["code_points"] += sum(map(len, lines))
                    self.counts["changed_code_points"] += changed_code_points(lines, clean)
                    self.counts["lines"] += len(clean)
                    for line in clean:
                        if len(line) > limit // 4 and len(line.encode()) > limit:
                            self.counts["too_long"] += 1
                        if line:
                            yield line
                    bar.update(block.consumed)


def _train(config: VocabularyConfig, sentences: _Sentences) -> bytes:
    written = io.BytesIO()  # not a file, whose name would become part of the model
    rule = config.normalization_rule
    sentencepiece.set_random_generator_seed(config.seed)
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(sentences),
            model_writer=written,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            model_type=config.model_type,
            control_symbols=list(config.control_symbols),
            user_defined_symbols=list(config.user_defined_symbols),
            input_sentence_size=config.input_sentence_size,
            shuffle_input_sentence=config.shuffle_input_sentence,
            max_sentence_length=config.max_sentence_bytes,
            normalization_rule_name=_RULES[config.normalization.form] if rule == "auto" else rule,
            byte_fallback=config.byte_fallback,
            num_threads=config.num_threads,
            minloglevel=2,
        )
    except Exception as error:
        if sentences.error is not None:
            raise sentences.error from None
        raise ValueError(_explain(config, sentences.counts, str(error))) from error
    if sentences.error is not None:
        raise sentences.error
    return written.getvalue()


def _explain(config: VocabularyConfig, counts: dict[str, int], message: str) -> str:
    if counts["lines"] == counts["too_long"]:
        return (
            f"no line of the text can be used: {counts['lines']:,} lines, all of them longer than "
            f"--max_sentence_bytes={config.max_sentence_bytes}"
            if counts["lines"]
            else "no line of the text can be used: all of them are blank (--input)"
        )
    if found := _TOO_HIGH.search(message):
        return (
            f"--vocab_size is {found[1]}, more than this text can fill: give at most {found[2]}, "
            "or more text"
        )
    if found := _TOO_LOW.search(message):
        return (
            f"--vocab_size is {config.vocab_size}, less than the {found[1]} characters and special "
            "symbols of this text: raise it, or lower --character_coverage"
        )
    return f"SentencePiece could not train: {' '.join(message.split())}"


def _warnings(config: VocabularyConfig, counts: dict[str, int]) -> Iterator[str]:
    if counts["too_long"]:
        yield (
            f"warning: {counts['too_long']:,} of {counts['lines']:,} lines were left out, longer "
            f"than --max_sentence_bytes={config.max_sentence_bytes}"
        )
    changed = counts["changed_code_points"] / max(counts["code_points"], 1)
    if changed > _ODD_SHARE:
        yield (
            f"warning: --normalization={config.normalization.form} replaces or drops "
            f"{changed:.1%} of the code points; nfc keeps them"
        )
