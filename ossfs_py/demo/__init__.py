"""The demonstration and the S3 server that comes with it: a first look without a cloud account.

``server`` runs SeaweedFS from a package on free ports in a directory of its own; tests use it, too.
``demonstration`` mounts a bucket of it over each data path and loads a model as any program would.
Nothing else in the package may depend on either.
"""
