"""S3 and OSS: the operations, their XML, what this store can do, its errors, and trying again.

``objectstore`` is the :class:`~ossfs_py.store.base.ObjectStore`; ``queries``, ``uploads`` and
``copying`` are the operations, ``describing`` carries what describes an object to those that take
its place, ``standing`` is what options put on every request, ``bodies`` is what is sent and its
checksums, ``probing`` finds out what the store can do and ``traits`` remembers it, ``conditions``
says conditional writes in its words, ``error_map`` is the one table of answers, ``retry`` the one
policy.

Every request goes through ``wire``, which signs and sends: one pool of connections, one limit, one
retry policy, one clock correction. A new operation (versions, tags, ACL, a bucket's versioning or
lifecycle, deleting in batches) is a :class:`~ossfs_py.store.s3.wire.Request` in the module whose
subject it is, and a few lines in ``documents`` if it has a body. boto3's client is not used: its
first call took 0.09 CPU-s and 14 MB, each 0.9 ms or more against 0.3, and it would be a second
owner of connections, time-outs, proxies and credentials.
"""
