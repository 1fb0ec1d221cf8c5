"""What text is read in: options, a stretch of one input, a block of whole lines."""

import dataclasses

BLOCK_BYTES = 1 << 20
FORMATS = ("auto", "text", "jsonl", "ids")


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """How files are read. Each field is a flag of the same name."""

    text_format: str = "auto"
    text_field: str = "text"
    max_line_bytes: int = 10_000_000
    skip_empty_files: bool = False
    invalid_utf8: str = "error"
    tfds_data_dir: str = ""

    def __post_init__(self) -> None:
        if self.text_format not in FORMATS:
            raise ValueError(
                f"unknown text format {self.text_format!r}: wanted one of {', '.join(FORMATS)} "
                "(--text_format)"
            )
        if self.invalid_utf8 not in ("error", "replace"):
            raise ValueError(
                f"--invalid_utf8 is {self.invalid_utf8!r}: wanted 'error' or 'replace'"
            )
        if self.max_line_bytes < 1:
            raise ValueError(f"--max_line_bytes is {self.max_line_bytes}: wanted at least 1")


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A part of one input: bytes of a file, or example numbers of a TFDS split (`kind` tfds)."""

    path: str
    begin: int
    end: int
    kind: str  # text, jsonl, ids or tfds
    is_gzip: bool = False
    ends_file: bool = True

    @property
    def size(self) -> int:
        """Bytes, or examples."""
        return self.end - self.begin


@dataclasses.dataclass(frozen=True)
class Block:
    """Some whole lines.

    `offset` is where they begin and `consumed` what was read for them, in the units of the stretch
    (bytes on disk, or examples); `text_bytes` counts the text itself.
    """

    lines: list[str]
    offset: int
    consumed: int
    text_bytes: int


def document_lines(text: str) -> list[str]:
    """The lines of one whole document, without blank ones, and a blank line to end it."""
    return [*(line for line in text.split("\n") if line and not line.isspace()), ""]
