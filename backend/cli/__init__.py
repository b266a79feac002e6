"""The command line of the model: files, previews, the terminal."""
