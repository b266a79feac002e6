"""Checkpoints: files, settings, loading."""
