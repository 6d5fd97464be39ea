"""The demonstration and the S3 server that comes with it: a first look without a cloud account.

``server`` runs SeaweedFS from a Python package, on free ports and in its own directory. The tests
use it, too. ``demonstration`` mounts one of its buckets over each data path, and loads a model as
any program would. Nothing else may depend on either.
"""
