"""Text to vectors: hidden states of any layers, by token or pooled, of texts of any length."""
