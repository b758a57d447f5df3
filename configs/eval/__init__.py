"""Configurations that evaluate a model from elsewhere: lcx eval --config=configs/eval/long.py --init=DIR."""
