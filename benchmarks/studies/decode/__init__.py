"""Decoding one token: from a paged cache, from a contiguous one, or without a cache."""
