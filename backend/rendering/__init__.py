"""Meshes to images: previews and contact sheets."""
