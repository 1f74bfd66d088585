"""Generative learners, their data and their metrics."""
