"""The parts of `train_gpt.py`, one concern a file."""
