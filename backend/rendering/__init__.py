"""Meshes to images: previews and contact sheets; images to a mesh's colours: cameras and textures."""
