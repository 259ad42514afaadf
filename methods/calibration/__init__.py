"""Searches for settings of methods on prompts of the un-pruned model, run by `python run.py calibrate`."""
