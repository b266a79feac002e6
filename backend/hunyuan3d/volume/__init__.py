"""Fields to triangles: coarse-to-fine decoding and marching cubes."""
