"""LayerNorm and RMSNorm.  Read `layer_norm`, `add_norm`, `operators`, then the two backends."""
