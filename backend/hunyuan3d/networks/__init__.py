"""The networks and their schedules."""
