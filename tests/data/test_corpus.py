import dataclasses
import gzip
import itertools
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from tests.data.test_line_rules import reference
from xlnet_jax.data import corpus, storage
from xlnet_jax.data.corpus import CorpusConfig, build_corpus, summary
from xlnet_jax.data.manifest import Manifest
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.text_blocks import TextOptions
from xlnet_jax.data.tokenizer import Tokenizer

GOLDENS = Path(__file__).parents[1] / "goldens"
CORPUS = GOLDENS / "data_utils/corpus"
MODEL = GOLDENS / "tokenization/en/spiece.model"
REFERENCE = Normalization("reference", lower=True)
EOD = 7
CONFIG = CorpusConfig(
    input=(str(CORPUS),), output_dir="", spiece_model=str(MODEL),
    text=TextOptions(skip_empty_files=True), num_workers=1, progress=False,
)  # fmt: skip


@pytest.fixture
def config(tmp_path):
    return dataclasses.replace(CONFIG, output_dir=str(tmp_path / "out"))


def build(config, **changes):
    reports: list[str] = []
    manifest = build_corpus(dataclasses.replace(config, **changes), reports.append)
    return manifest, reports


def read(folder):
    """All shards of a folder in order: tokens, and starts counted from the first token."""
    tokens: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    for shard in Manifest.read(folder).shards:
        base = sum(map(len, tokens))
        tokens.append(np.fromfile(Path(folder) / f"{shard['name']}.tokens", "<u2"))
        starts.append(np.fromfile(Path(folder) / f"{shard['name']}.starts", "<u4") + base)
    return np.concatenate(tokens).tolist(), np.concatenate(starts).tolist()


def contents(folder):
    """Every file of a data folder, held-out part included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def lines_as_the_original_reads(path, tokenizer):
    """Each line of a file as a list of ids, None if blank."""
    lines = path.read_bytes().decode().split("\n")
    for line in lines[:-1] if lines[-1] == "" else lines:
        yield tokenizer.encode(line.strip()) if line.strip() else None


@pytest.mark.parametrize("use_eod", [True, False])
def test_the_stream_is_the_originals_with_reference_settings(config, use_eod):
    manifest, _ = build(config, normalization=REFERENCE, use_eod=use_eod)
    tokenizer = Tokenizer(MODEL, REFERENCE)
    tokens: list[int] = []
    starts: list[int] = []
    for path in sorted(CORPUS.glob("*.txt")):
        found = reference(list(lines_as_the_original_reads(path, tokenizer)), use_eod)
        starts += [start + len(tokens) for start in found[1]]
        tokens += found[0]
    assert read(config.output_dir) == (tokens, starts)
    assert manifest.line_rules == "reference"
    assert manifest.totals["tokens"] == len(tokens)
    assert manifest.totals["sentences"] == len(starts)


def test_fixed_rules_end_every_document_once(config):
    manifest, _ = build(config)
    tokens, starts = read(config.output_dir)
    assert manifest.line_rules == "fixed"
    assert tokens.count(EOD) == manifest.totals["documents"]
    assert tokens[-1] == EOD
    assert all(not (a == b == EOD) for a, b in itertools.pairwise(tokens))
    assert EOD not in [tokens[start] for start in starts]
    assert len(starts) == manifest.totals["sentences"]


def test_shard_files_hold_what_their_json_says(config):
    manifest, _ = build(config, unit_bytes=2048)
    assert len(manifest.shards) > 3
    folder = Path(config.output_dir)
    for shard in manifest.shards:
        facts = json.loads((folder / f"{shard['name']}.json").read_text())
        for suffix, count, dtype in (
            ("tokens", facts["tokens"], facts["dtype"]),
            ("starts", facts["sentences"], facts["starts_dtype"]),
        ):
            raw = (folder / f"{shard['name']}.{suffix}").read_bytes()
            assert len(raw) == count * np.dtype(dtype).itemsize
            size = facts["block_bytes"]
            blocks = [raw[at : at + size] for at in range(0, len(raw), size)]
            assert facts[f"crc32_{suffix}"] == [zlib.crc32(block) for block in blocks]
        starts = np.fromfile(folder / f"{shard['name']}.starts", "<u4")
        assert starts[0] == 0
        assert (np.diff(starts.astype(np.int64)) > 0).all()
    assert (folder / "spiece.model").read_bytes() == MODEL.read_bytes()
    for key in ("tokens", "sentences", "documents"):
        assert manifest.totals[key] == sum(shard[key] for shard in manifest.shards)


@pytest.mark.parametrize("normalization", [REFERENCE, Normalization()], ids=["reference", "nfc"])
def test_cutting_the_work_otherwise_gives_the_same_stream(config, tmp_path, normalization):
    streams = []
    for unit_bytes in (0, 1024, 4000):
        folder = str(tmp_path / f"unit{unit_bytes}")
        build(config, normalization=normalization, unit_bytes=unit_bytes, output_dir=folder)
        streams.append(read(folder))
    assert streams[0] == streams[1] == streams[2]


def test_a_document_cut_after_a_line_ends_once(config, tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {i} and nothing else\n" for i in range(300)))
    changes = {"input": (str(tmp_path / "a.txt"),)}
    build(config, **changes, output_dir=str(tmp_path / "whole"))
    manifest, _ = build(config, **changes, unit_bytes=1024)
    assert len(manifest.shards) > 4
    assert read(config.output_dir) == read(tmp_path / "whole")
    assert read(config.output_dir)[0].count(EOD) == 1


def test_any_number_of_workers_and_any_run_give_the_same_bytes(config, tmp_path):
    found = []
    for i, num_workers in enumerate((1, 1, 3)):
        folder = str(tmp_path / f"run{i}")
        build(config, num_workers=num_workers, unit_bytes=1024, output_dir=folder, heldout_every=4)
        found.append(contents(folder))
    assert len(found[0]) > 20
    assert found[0] == found[1] == found[2]


def test_gzip_and_json_hold_the_same_text(config, tmp_path):
    documents = [["one two", "three"], ["four"], ["five six", "seven", "eight"]]
    text = "\n\n".join("\n".join(lines) for lines in documents)
    rows = "".join(json.dumps({"text": "\n".join(lines)}) + "\n" for lines in documents)
    inputs = {
        "a.txt": text.encode(),
        "b.txt.gz": gzip.compress(text.encode()),
        "c.jsonl": rows.encode(),
        "d.jsonl.gz": gzip.compress(rows.encode()),
    }
    streams = []
    for name, raw in inputs.items():
        (tmp_path / name).write_bytes(raw)
        manifest, _ = build(
            config, input=(str(tmp_path / name),), output_dir=str(tmp_path / name[0])
        )
        streams.append(read(tmp_path / name[0]))
        assert manifest.totals["documents"] == 3
    assert streams[0] == streams[1] == streams[2] == streams[3]
    # Reference line rules are for lines of text files; each json document ends once, or never was.
    (tmp_path / "e.jsonl").write_text('{"text": ""}\n' + rows + '{"text": " "}\n')
    manifest, _ = build(
        config, input=(str(tmp_path / "e.jsonl"),), output_dir=str(tmp_path / "e"),
        line_rules="reference",
    )  # fmt: skip
    assert read(tmp_path / "e") == streams[0]
    assert manifest.counts["documents_without_text"] == 2


def test_a_large_gzip_file_becomes_several_shards(config, tmp_path):
    text = (CORPUS / "a_plain.txt").read_bytes() * 700  # over a block, so that it is cut inside
    (tmp_path / "a.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.txt").write_bytes(text)
    manifest, _ = build(
        config, input=(str(tmp_path / "a.gz"),), unit_bytes=1 << 19, normalization=REFERENCE
    )
    names = [shard["name"] for shard in manifest.shards]
    assert names == ["shard-00000", "shard-00000-001"]
    assert read(config.output_dir)[0][: manifest.shards[0]["tokens"]][-1] == EOD
    build(config, input=(str(tmp_path / "a.txt"),), output_dir=str(tmp_path / "p"),
          normalization=REFERENCE)  # fmt: skip
    assert read(config.output_dir) == read(tmp_path / "p")


def test_lines_of_ids_are_taken_as_they_are(config):
    text = TextOptions(text_format="ids")
    build(config, input=(str(GOLDENS / "data_utils/ids/ids_1.txt"),), text=text,
          line_rules="reference")  # fmt: skip
    raw = (GOLDENS / "data_utils/ids/ids_1.txt").read_text().split("\n")
    lines = [[int(i) for i in line.split()] or None for line in raw]
    assert read(config.output_dir) == reference(lines[:-1] if raw[-1] == "" else lines, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [("5 2000 6", r"id 2000 is not in the vocabulary of 2000"), ("5 x", "wanted ids")],
)
def test_wrong_ids_are_named(config, tmp_path, line, message):
    (tmp_path / "ids.txt").write_text(f"1 2\n{line}\n")
    with pytest.raises(ValueError, match=rf"ids\.txt: in the lines from byte 0 on: {message}"):
        build(config, input=(str(tmp_path / "ids.txt"),), text=TextOptions(text_format="ids"))


def test_every_kth_document_is_held_out(config, tmp_path):
    whole, _ = build(config, output_dir=str(tmp_path / "whole"))
    manifest, reports = build(config, heldout_every=4, unit_bytes=2000)
    heldout = Manifest.read(Path(config.output_dir) / "heldout")
    assert (manifest.part, heldout.part) == ("train", "heldout")
    documents = {
        name: sorted(" ".join(map(str, read(folder)[0])).split(f" {EOD} "))
        for name, folder in (
            ("whole", tmp_path / "whole"),
            ("train", config.output_dir),
            ("heldout", Path(config.output_dir) / "heldout"),
        )
    }
    flat = {
        name: sorted(part.removesuffix(f" {EOD}") for part in parts)
        for name, parts in documents.items()
    }
    assert sorted(flat["train"] + flat["heldout"]) == flat["whole"]
    assert len(flat["heldout"]) == heldout.totals["documents"]
    assert 0.15 < heldout.totals["documents"] / whole.totals["documents"] < 0.35
    assert any(line.startswith("held out: ") for line in reports)
    heldout.tokenizer(Path(config.output_dir) / "heldout")


def test_too_few_documents_to_hold_out_are_an_error(config, tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree\n")
    with pytest.raises(
        ValueError, match=r"held out: .*\(a blank line ends one\) for --heldout_every=9"
    ):
        build(config, input=(str(tmp_path / "a.txt"),), heldout_every=9)


def test_everything_odd_is_counted_and_warned_about(config, tmp_path):
    (tmp_path / "a.txt").write_text("\u0301\nがぎ ab\n\n \nが\u4e00\n")
    (tmp_path / "b.txt").write_text("")
    manifest, reports = build(
        config, input=(str(tmp_path / "?.txt"),), normalization=Normalization("reference")
    )
    assert manifest.counts == {
        "text_bytes": 23, "lines": 5, "blank_lines": 2, "lines_without_pieces": 1,
        "documents_without_text": 0, "unknown_pieces": 2, "code_points": 8,
        "changed_code_points": 4, "empty_files": 1,
    }  # fmt: skip
    assert reports == summary(manifest)
    assert any("2 blank lines, 1 lines without pieces" in line for line in reports)
    assert any(line.startswith("warning: ") and "<unk>" in line for line in reports)
    assert any("--normalization=reference replaces or drops 50.0%" in line for line in reports)


def test_finished_shards_are_kept_and_missing_or_damaged_ones_made_again(config):
    manifest, _ = build(config, unit_bytes=1024)
    folder = Path(config.output_dir)
    before = contents(folder)
    names = [shard["name"] for shard in manifest.shards]
    (folder / f"{names[1]}.json").unlink()
    cut = folder / f"{names[2]}.tokens"
    cut.write_bytes(cut.read_bytes()[:-1])
    (folder / f"{storage.TEMPORARY}{names[3]}.tokens.1-x").write_text("half")
    (folder / "manifest.json").unlink()
    kept = (folder / f"{names[0]}.tokens").stat().st_mtime_ns
    again, reports = build(config, unit_bytes=1024)
    assert contents(folder) == before
    assert again == manifest
    assert (folder / f"{names[0]}.tokens").stat().st_mtime_ns == kept
    units = len(names)
    assert "removed 1 unfinished files of an earlier run" in reports
    assert f"resuming: {units - 2} of {units} units are finished" in reports


def test_shards_that_go_away_meanwhile_are_missed(config, monkeypatch):
    build(config, unit_bytes=1024)
    folder = Path(config.output_dir)
    whole = contents(folder)
    (folder / "shard-00001.json").unlink()
    (folder / "manifest.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "run_units", lambda *_, **__: None)
        with pytest.raises(OSError, match=r"1 shards went away from .*, such as shard-00001"):
            build(config, unit_bytes=1024)
    assert not (folder / "manifest.json").exists()
    build(config, unit_bytes=1024)
    assert contents(folder) == whole


def test_other_settings_are_refused_field_by_field(config, tmp_path):
    build(config)
    before = contents(config.output_dir)
    with pytest.raises(ValueError, match="holds shards made otherwise") as caught:
        build(config, normalization=REFERENCE, use_eod=False, text=TextOptions(text_field="body",
              skip_empty_files=True))  # fmt: skip
    for part in (
        'normalization.form: the folder has "nfc", this run wants "reference"',
        "normalization.lower: the folder has false, this run wants true",
        "use_eod: the folder has true, this run wants false",
        'line_rules: the folder has "fixed", this run wants "reference"',
        'text_field: the folder has "text", this run wants "body"',
        "(choose another --output_dir, or --overwrite to start again)",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    chinese = str(GOLDENS / "tokenization/zh/spiece.model")
    with pytest.raises(ValueError, match="tokenizer_sha256: the folder has"):
        build(config, spiece_model=chinese)
    with pytest.raises(
        ValueError, match=r"files\..*f_more\.txt: the folder has it, this run does n"
    ):
        build(config, input=(str(CORPUS / "[a-e]*.txt"),))
    assert contents(config.output_dir) == before
    manifest, _ = build(config, spiece_model=chinese, overwrite=True)
    assert Manifest.read(config.output_dir) == manifest
    assert manifest.normalization["form"] == "nfc"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": ("/nowhere/*.txt",)}, r"no file matches '/nowhere/\*\.txt' \(--input\)"),
        ({"input": ()}, r"wanted either --input \(files\) or --tfds"),
        ({"output_dir": ""}, r"--output_dir is missing"),
        ({"spiece_model": "/nowhere/x.model"}, r"no SentencePiece model at /nowhere/x.model"),
        ({"line_rules": "x"}, r"unknown line rules 'x': wanted auto, reference or fixed"),
        ({"heldout_every": 1}, r"--heldout_every is 1: wanted 0 .* or at least 2"),
        ({"unit_bytes": 5}, r"--unit_bytes is 5: wanted 0"),
        ({"num_workers": -1}, r"--num_workers is -1"),
        ({"text": TextOptions()}, r"d_empty\.txt: the file is empty"),
        ({"output_dir": f"{MODEL}/out"}, r"cannot write there .*--output_dir"),
    ],
)
def test_wrong_settings_get_one_clear_line(config, changes, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        build(config, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_names_the_file_and_keeps_finished_shards(config, tmp_path, num_workers):
    for i in range(4):
        (tmp_path / f"{i}.txt").write_bytes(b"good line\n" * 150 + b"\xff\n" * (i == 3))
    changes = {"input": (str(tmp_path / "*.txt"),), "unit_bytes": 1024, "num_workers": num_workers}
    with pytest.raises(ValueError, match=r"3\.txt: invalid UTF-8 at byte 1500 \(0xff\)"):
        build(config, **changes)
    folder = Path(config.output_dir)
    assert not (folder / "manifest.json").exists()
    assert not list(folder.glob(f"{storage.TEMPORARY}*"))
    assert (folder / "shard-00000.json").exists()
    with pytest.raises(FileNotFoundError, match="did not finish there"):
        Manifest.read(folder)


def test_text_without_a_token_is_an_error(config, tmp_path):
    (tmp_path / "a.txt").write_text("\n \n\u0301\n")
    with pytest.raises(
        ValueError, match="gave no token: 3 lines, 2 of them blank, 1 without pieces"
    ):
        build(config, input=(str(tmp_path / "a.txt"),), normalization=REFERENCE, use_eod=False)


def test_a_second_process_on_the_same_folder_is_refused(config):
    build(config)
    with (
        storage.only_writer(epath.Path(config.output_dir)),
        pytest.raises(ValueError, match=r"another process is writing to .*out"),
    ):
        build(config)
    build(config)


def test_a_full_disk_names_the_file_and_leaves_no_half_shard(config, monkeypatch):
    build(config, unit_bytes=1024)
    folder = Path(config.output_dir)
    whole = contents(folder)
    (folder / "shard-00002.json").unlink()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match=r"cannot write \(No space left on device\).*00002\.tokens"
        ):
            build(config, unit_bytes=1024)
    assert contents(folder) == {k: v for k, v in whole.items() if k != "shard-00002.json"}
    build(config, unit_bytes=1024)
    assert contents(folder) == whole
