"""Trackers: files alone, W&B offline, W&B online."""
class Tracker: pass
class FilesTracker(Tracker):
    def __getattr__(self, n): return lambda *a, **k: None
