"""Ops on a paged KV cache.  Read `append`, `attention`, `copy_blocks`, then the two backends."""
