import numpy as np
import pytest

from tests.tasks.qa_files import CHINESE, file_of
from xlnet_jax.tasks.qa import boundaries
from xlnet_jax.tasks.qa.boundaries import Boundaries
from xlnet_jax.tasks.qa.config import DataConfig
from xlnet_jax.tasks.qa.features import make_windows

CONFIG = DataConfig(max_seq_length=64, max_query_length=8)


def windows_of(*paragraphs, training=True):
    return make_windows(file_of(*paragraphs), CHINESE, CONFIG, training=training)


def test_borders_inside_pieces_are_counted_by_piece():
    text = "XLNet模型"
    begins = CHINESE.encode_with_offsets(text)[1]
    ids = CHINESE.encode(text)
    first = int(np.flatnonzero(begins[:, 1] - begins[:, 0] > 2)[0])
    a, b = begins[first].tolist()
    inner = text[a + 1 : b - 1]
    windows = windows_of((text, [("啥", [(inner, a + 1)]), ("谁", [(inner, a + 1)]),
                                 ("吗", [(text[a:b], a)])]))  # fmt: skip
    found = boundaries.learn(windows)
    assert found == Boundaries({ids[first]: 1}, {ids[first]: 1})
    assert Boundaries.from_json(found.to_json()) == found
    pieces, at = windows.pieces, np.array([first])
    begin, end = found.trim(pieces, at, at)
    assert (begin.tolist(), end.tolist()) == ([a + 1], [b - 1])
    even = windows_of((text, [("啥", [(inner, a + 1)]), ("吗", [(text[a:b], a)])]))
    assert boundaries.learn(even) == Boundaries({}, {})


def test_nothing_is_trimmed_away_whole():
    text = "XLNet模型"
    pieces = windows_of((text, [("啥", [])]), training=False).pieces
    everything = np.arange(len(pieces.ids))
    table = dict.fromkeys(pieces.ids.tolist(), 99)
    begins, ends = Boundaries(table, table).trim(pieces, everything, everything)
    assert begins.tolist() == pieces.begins.tolist()
    assert ends.tolist() == pieces.ends.tolist()
    wide = int(np.argmax(pieces.ends - pieces.begins))
    width = int((pieces.ends - pieces.begins)[wide])
    half = {int(pieces.ids[wide]): width - 1}
    begins, ends = Boundaries(half, half).trim(pieces, np.array([wide]), np.array([wide]))
    assert (ends > begins).all()


def test_only_training_windows_teach_and_only_json_is_read():
    with pytest.raises(ValueError, match="learned from the answers of training windows"):
        boundaries.learn(windows_of(("模型", [("啥", [])]), training=False))
    for text in ("no json", "[1]", '{"leads": {}}', '{"leads": {"x": 1}, "trails": {}}'):
        with pytest.raises(ValueError, match=r"config\.data\.learned_boundaries is "):
            Boundaries.from_json(text)
