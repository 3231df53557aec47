"""Time and memory of attention against sequence length."""
