"""ossfs_py: an object bucket as a file system, made for loading models."""
