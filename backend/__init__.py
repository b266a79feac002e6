"""ORFEAS: pictures in, meshes out, for agents."""

__version__ = "0.1.0"
