"""Text to tensors: clean-up, vocabularies, token shards, input pipelines."""
