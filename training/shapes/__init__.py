"""Procedural solids: primitives, silhouettes, object families and the generator that turns a seed into a shape."""
