"""ossfs_py mounts an object bucket as a file system, made for loading models."""
