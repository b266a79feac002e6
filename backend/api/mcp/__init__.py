"""The Model Context Protocol at /mcp: the service's calls as tools for a language model."""
