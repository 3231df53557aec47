"""GELU and gated linear units.  Read `gelu`, `bias_gelu`, `glu`, then the two backends."""
