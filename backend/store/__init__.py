"""What outlives a process: the database with its tables, files, and the sweeping of both."""
