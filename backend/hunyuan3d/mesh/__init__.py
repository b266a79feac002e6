"""Meshes: cleaned, decimated, exported."""
