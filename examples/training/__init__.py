"""What `train_gpt.py` is made of, one concern a file."""
