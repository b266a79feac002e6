"""ORFEAS: pictures in, meshes out, for agents."""
