"""Span question answering, part by part; `tasks.span_qa` joins them."""
