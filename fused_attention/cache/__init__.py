"""The paged KV cache.  Read `paged_kv_cache`, then `page_tables`, `block_pool`, `step_tensors`."""
