"""Training of the network that cuts objects out of ordinary photographs."""
