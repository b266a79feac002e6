"""The page for people: static files that a browser runs, and what gets it started without typing a key."""
