import json

import numpy as np
from etils import epath

from xlnet_jax.data.line_rules import Stream
from xlnet_jax.data.shard_writer import ShardBuffer, token_dtype


def stream(lengths, starts, documents, is_eod):
    total = sum(lengths)
    return Stream(
        np.arange(10, 10 + total, dtype=np.int32),
        np.array(lengths),
        np.array(starts, bool),
        np.array(documents),
        np.array(is_eod, bool),
    )


TWO_DOCUMENTS = stream([2, 1, 3, 1, 1], [1, 0, 0, 1, 0], [0, 0, 1, 1, 1], [0, 1, 0, 0, 1])


def written(buffer, folder):
    buffer.write(epath.Path(folder), "shard-00000", {"is_last": True})
    facts = json.loads((folder / "shard-00000.json").read_text())
    tokens = np.fromfile(folder / "shard-00000.tokens", np.dtype(facts["dtype"]).newbyteorder("<"))
    starts = np.fromfile(folder / "shard-00000.starts", "<u4")
    return tokens.tolist(), starts.tolist(), facts


def test_streams_are_joined_end_to_end(tmp_path):
    buffer = ShardBuffer("uint16")
    buffer.add(TWO_DOCUMENTS)
    buffer.add(stream([2, 2], [1, 1], [2, 2], [0, 0]))
    tokens, starts, facts = written(buffer, tmp_path)
    assert tokens == [*range(10, 18), *range(10, 14)]
    assert starts == [0, 6, 8, 10]
    assert (facts["tokens"], facts["sentences"], facts["documents"]) == (12, 4, 3)
    assert facts["is_last"] is True


def test_a_shard_begins_with_a_sentence_whatever_was_left_out_before(tmp_path):
    buffer = ShardBuffer("uint16")
    buffer.add(TWO_DOCUMENTS, TWO_DOCUMENTS.documents == 1)
    tokens, starts, facts = written(buffer, tmp_path)
    assert tokens == [13, 14, 15, 16, 17]
    assert starts == [0, 3]
    assert facts["documents"] == 1


def test_a_shard_may_be_empty(tmp_path):
    buffer = ShardBuffer("uint16")
    buffer.add(TWO_DOCUMENTS, np.zeros(5, bool))
    assert written(buffer, tmp_path)[:2] == ([], [])


def test_vocabularies_over_65536_get_wider_tokens(tmp_path):
    assert token_dtype(1 << 16) == "uint16"
    assert token_dtype((1 << 16) + 1) == "uint32"
    buffer = ShardBuffer(token_dtype(70_000))
    wide = stream([1], [1], [0], [0])
    wide.tokens[0] = 69_999
    buffer.add(wide)
    assert written(buffer, tmp_path)[0] == [69_999]
