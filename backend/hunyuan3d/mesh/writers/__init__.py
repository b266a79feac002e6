"""One module for each kind of mesh file: a Surface in, bytes out."""
