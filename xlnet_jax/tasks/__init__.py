"""What the network is trained for: one file a kind of work, from example to score."""
