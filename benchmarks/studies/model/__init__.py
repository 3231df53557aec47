"""A whole GPT, training and generating, with each kind of attention."""
