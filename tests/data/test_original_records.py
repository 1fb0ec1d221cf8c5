import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity import data_utils as parity
from tests.parity.__main__ import run as run_case
from xlnet_jax.data import original_records, record_infos
from xlnet_jax.data.original_records import alternating_rows

GOLDENS = Path(__file__).parents[1] / "goldens"
RUNS = GOLDENS / "data_utils/runs"


@pytest.mark.parametrize("case", list(parity.cases(GOLDENS)), ids=lambda case: case.name)
def test_it_is_as_in_the_original(case):
    assert case.run is not None, case.reason
    result = case.run()
    assert result.passed, result


def change(path):
    """Adds 1 to one number of the arrays in a file."""
    with np.load(path) as archive:
        arrays = dict(archive)
    for name, array in arrays.items():
        if name.endswith(("out_perm_mask", "perm_mask", "is_masked")):
            arrays[name] = array.copy()
            arrays[name].flat[7] = 1 - arrays[name].flat[7]
    np.savez(path, **arrays)


def test_the_comparison_sees_a_wrong_number_everywhere(tmp_path):
    for part in (
        "data_utils/corpus",
        "data_utils/ids",
        "data_utils/runs/from_ids",
        "data_utils/runs/unseeded_uni_tpu",
    ):
        shutil.copytree(GOLDENS / part, tmp_path / part)
    folder = tmp_path / "data_utils"
    for name in ("meta.json", "helpers.json", "local_perm.npz", "spiece.model"):
        (folder / name).write_bytes((GOLDENS / "data_utils" / name).read_bytes())
    meta = json.loads((folder / "meta.json").read_text())
    meta["runs"] = {key: meta["runs"][key] for key in ("from_ids", "unseeded_uni_tpu")}
    for key in ("parsed_examples", "record_info_merging"):
        del meta[key]
    (folder / "meta.json").write_text(json.dumps(meta))
    assert {run_case(case)[0] for case in parity.cases(tmp_path)} == {"ok"}

    helpers = json.loads((folder / "helpers.json").read_text())
    helpers["sample_mask"][3]["mask"][0] ^= 1
    helpers["split_a_and_b"][0]["next_random"] += 1e-9
    helpers["is_start_piece"][77] ^= 1
    helpers["batchify"][0]["out_data"][0][0] += 1
    helpers["format_filename"][0]["result"] += "x"
    helpers["new_helper"] = []
    (folder / "helpers.json").write_text(json.dumps(helpers))
    change(folder / "local_perm.npz")
    for run in ("from_ids", "unseeded_uni_tpu"):
        change(folder / "runs" / run / "records.npz")
        path = folder / "runs" / run / "corpus_info.json"
        path.write_text(path.read_text().replace('"mask_alpha": 6', '"mask_alpha": 5'))
    found = {case.name: run_case(case)[0] for case in parity.cases(tmp_path)}
    assert found.pop("data_utils/helpers/new_helper") == "not run"
    assert set(found.values()) == {"FAIL"}, found


def test_rows_of_both_directions_alternate():
    # Two cores of four: each has two forward and then two backward records.
    assert alternating_rows(8, 2, bi_data=True).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert alternating_rows(4, 1, bi_data=True).tolist() == [0, 2, 1, 3]
    assert alternating_rows(4, 2, bi_data=False).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("size", "cores", "unit"), [(8, 3, 6), (4, 4, 8), (4, 0, 0)])
def test_rows_that_cannot_be_shared_out_are_an_error(size, cores, unit):
    with pytest.raises(
        ValueError, match=f"host batch size is {size}; it must be a multiple of {unit}"
    ):
        alternating_rows(size, cores, bi_data=True)


def batches_of(run, **changes):
    (info,) = record_infos.find_infos([RUNS / run / "tfrecords"], "train")
    values = {"path": info.filenames[0], "num_batch": info.num_batch, "cache_dir": None, **changes}
    return original_records.RecordBatches(settings=info.settings, **values)


def test_a_batch_is_read_wherever_it_is():
    file = batches_of("uni_gpu_cased")
    with np.load(RUNS / "uni_gpu_cased/records.npz") as arrays:
        wanted = {key.rsplit("/", 1)[-1]: arrays[key] for key in arrays}
    found = file.read(24, np.array([3, 0]))
    for name in original_records.FEATURES:
        assert (found[name] == wanted[name][[99, 96]]).all()
    assert len(file) == 25
    assert len(batches_of("uni_gpu_cased", num_batch=None)) == 25


def test_a_file_with_another_number_of_records_is_named():
    with pytest.raises(ValueError, match=r"train-0-0.*: 100 records, but its record info says 26"):
        batches_of("uni_gpu_cased", num_batch=26).read(0, np.arange(4))


def test_records_of_another_length_are_named():
    file = batches_of("uni_gpu_cased")
    record = next(iter(file._opened()))
    with pytest.raises(
        ValueError, match=r"x.tfrecords: no records of 32 tokens \(config.data.seq_len\)"
    ):
        original_records.parse([record], 32, "x.tfrecords")


def test_writing_twice_gives_equal_bytes(tmp_path):
    (info,) = record_infos.find_infos([RUNS / "uni_gpu_cased/tfrecords"], "train")
    file = batches_of("uni_gpu_cased")
    for name in ("one", "other"):
        batches = (file.read(k, np.arange(4)) for k in range(3))
        original_records.write_run(
            tmp_path / name, info.settings, batches, corpus_info={"use_eod": True}
        )
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 3
    for path in files:
        one, other = (tmp_path / name / path for name in ("one", "other"))
        assert one.read_bytes() == other.read_bytes().replace(b"/other/", b"/one/")
