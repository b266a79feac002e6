"""The command line: `orfeas` and, for its `generate`, files, previews and the terminal."""
