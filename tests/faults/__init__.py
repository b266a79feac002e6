"""What the service survives: kills, outages, full disks, floods."""
