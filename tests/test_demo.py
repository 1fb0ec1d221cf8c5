import pytest

from xlnet_jax import demo


def test_an_earlier_demo_is_made_anew(tmp_path):
    folder = tmp_path / "run"
    demo.make_anew(folder)
    (folder / "text").mkdir()
    (folder / "text" / "python.txt").write_text("old")
    demo.make_anew(folder)
    assert [path.name for path in folder.iterdir()] == [demo.MARKER]


def test_a_folder_of_the_user_is_left_alone(tmp_path):
    (tmp_path / "text").mkdir()  # what the demo itself makes first
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="something else than an earlier demo"):
        demo.make_anew(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(SystemExit, match="run is a file"):
        demo.make_anew(tmp_path / "run")
