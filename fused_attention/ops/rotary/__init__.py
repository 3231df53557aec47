"""Rotary position embedding.  Read `rotary`, `scaling`, then the two backends."""
