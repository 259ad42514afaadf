"""Sample strategies, one file each."""
