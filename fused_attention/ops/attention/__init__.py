"""Attention.  Read `attention`, the two backends, `tiles`, `tile_online`, `tile_aten`, `sdpa`."""
