"""Files, hashes, tables of text, paths, console output and process setup."""
