"""Environments as tensors, and adapters to Gymnasium."""
