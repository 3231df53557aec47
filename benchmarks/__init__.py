"""Measures how attention scales: time, memory and accuracy, on the machine it finds."""
