"""The database connection and the file stores."""
