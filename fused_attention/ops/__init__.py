"""Fused ops, a folder per family.  Read `registration`, `backend`, then a family's public op."""
