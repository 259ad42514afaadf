"""Token strategies, one file each."""
