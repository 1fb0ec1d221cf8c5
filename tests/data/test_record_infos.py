import json
from pathlib import Path

import pytest

from xlnet_jax.data import record_infos

RUNS = Path(__file__).parents[1] / "goldens/data_utils/runs"
WANTED = {
    "seq_len": 64, "reuse_len": 32, "bi_data": True, "mask_alpha": 6, "mask_beta": 1,
    "num_predict": 11,
}  # fmt: skip


def infos(run, split="train"):
    return record_infos.find_infos([RUNS / run / "tfrecords"], split)


def test_settings_are_read_from_the_names():
    (info,) = infos("uni_gpu_cased")
    assert info.settings == record_infos.RecordSettings(4, 64, 32, False, 6, 1, 11, False)
    assert (info.split, info.task, info.pass_id, info.num_batch) == ("train", 0, 0, 25)
    assert info.settings.file_name("train-0-0", "tfrecords") == Path(info.filenames[0]).name
    assert Path(info.filenames[0]).exists()


def test_a_name_without_reuse_len_and_num_predict_is_read(tmp_path):
    name = record_infos.format_filename("record_info-dev-2-13", 8, 128, True, "json")
    (tmp_path / name).write_text(
        json.dumps({"filenames": ["far/away/x.tfrecords"], "num_batch": 3})
    )
    (info,) = record_infos.find_infos([tmp_path], "dev")
    assert info.settings == record_infos.RecordSettings(8, 128, None, True, 5, 1, None, False)
    assert (info.task, info.pass_id) == (2, 13)
    assert info.filenames == (str(tmp_path / "x.tfrecords"),)


def batches(found):
    return sum(info.num_batch for info in found)


def test_several_folders_are_joined():
    both = [RUNS / run / "tfrecords" for run in ("two_tasks_two_passes", "from_ids")]
    found = record_infos.find_infos(both, "train")
    assert batches(found) == 102 + 31
    assert sum(len(info.filenames) for info in found) == 5


def test_passes_can_be_left_out_unlike_in_the_original():
    found = infos("two_tasks_two_passes")
    assert batches(record_infos.select(found, WANTED)) == 102  # reference
    first = record_infos.select(found, WANTED, num_passes=1)
    assert [(info.task, info.pass_id) for info in first] == [(0, 0), (1, 0)]
    assert batches(first) == 51
    later = [info for info in found if info.pass_id == 1]
    with pytest.raises(ValueError, match="later passes than the 1 wanted"):
        record_infos.select(later, WANTED, num_passes=1)


def test_every_difference_from_the_config_is_named():
    found = infos("bi_tpu_2cores") + infos("uni_gpu_cased")
    with pytest.raises(ValueError, match="no records fit the config: ") as caught:
        record_infos.select(found, {**WANTED, "seq_len": 512, "num_predict": None})
    message = str(caught.value)
    assert "seq_len: the records have 64, the config 512; num_predict: the records " in message
    assert "bi_data: the records have false, the config true" in message
    assert "\n" not in message


def test_no_records_are_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no file record_info-train-\*.json in .*tfrecords"
    ):
        record_infos.find_infos([tmp_path], "train")
    with pytest.raises(FileNotFoundError, match="no such folder of records"):
        record_infos.find_infos([tmp_path / "none"], "train")


def test_an_info_that_is_none_is_named(tmp_path):
    name = record_infos.format_filename("record_info-train-0-0", 8, 128, True, "json")
    for content in ("{", "[]", '{"filenames": []}'):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=r"record_info-train-0-0.*: no record info"):
            record_infos.find_infos([tmp_path], "train")


def copy_of(run, tmp_path):
    info_path = next((RUNS / run / "tfrecords").glob("*.json"))
    (tmp_path / "tfrecords").mkdir()
    (tmp_path / "tfrecords" / info_path.name).write_text(info_path.read_text())
    (tmp_path / "corpus_info.json").write_text((RUNS / run / "corpus_info.json").read_text())
    return record_infos.find_infos([tmp_path / "tfrecords"], "train")


def test_cores_are_those_of_the_corpus_info(tmp_path):
    assert record_infos.cores_per_host(infos("bi_tpu_2cores")) == 2
    assert record_infos.cores_per_host(infos("bi_gpu_2cores")) == 1
    with pytest.raises(ValueError, match="several core counts"):
        record_infos.cores_per_host(infos("bi_tpu_2cores") + infos("bi_gpu_2cores"))
    found = copy_of("bi_tpu_2cores", tmp_path)
    path = tmp_path / "corpus_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seq_len": 128}))
    with pytest.raises(
        ValueError, match=r"of other records: seq_len: it has 128.*num_core_per_host"
    ):
        record_infos.cores_per_host(found)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"corpus_info.json: missing; .*num_core_per_host"):
        record_infos.cores_per_host(found)
