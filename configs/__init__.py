"""Experiment configurations: ``base.py`` is complete, every other file changes a few of its fields."""
