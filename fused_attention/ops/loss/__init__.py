"""Cross-entropy.  Read `cross_entropy`, the two backends, then `linear_cross_entropy`."""
