"""Trackers: files alone, W&B offline, W&B online."""
