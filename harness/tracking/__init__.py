"""Trackers: files alone, W&B offline, W&B online. wandb itself runs in a process of its own (feeder.py)."""

from harness.tracking.syncing import SyncReport, sync
from harness.tracking.tracker import FilesTracker, Kind, Tracker, has_login, make_tracker

__all__ = ["FilesTracker", "Kind", "SyncReport", "Tracker", "has_login", "make_tracker", "sync"]
