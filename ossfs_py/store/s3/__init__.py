"""S3 and OSS: the operations, their XML, the abilities of the store, its errors, and retries.

``objectstore`` is the :class:`~ossfs_py.store.base.ObjectStore`. ``queries``, ``uploads`` and
``copying`` are the operations. ``describing`` carries the description of an object over to the
objects that replace it. ``standing`` has the headers that options put on every request. ``bodies``
has the request bodies and their checksums. ``probing`` finds out what the store can do, and
``traits`` remembers it. ``conditions`` expresses conditional writes in the store's dialect.
``error_map`` is the one table of errors, ``retry`` the one policy. ``inline`` sends short GETs
without a thread, ``inlineputs`` small new objects; ``inlineloop`` has what is alike.

Every request goes through ``wire``, which signs and sends: one pool of connections, one limit, one
retry policy, one clock correction. A new operation (versions, tags, ACL, a bucket's versioning or
lifecycle, batch deletion) is a :class:`~ossfs_py.store.s3.wire.Request` in the module of its
subject, and a few lines in ``documents`` if it has a body. boto3's client is not used: its first
call took 0.09 CPU-s and 14 MB, and each one 0.9 ms or more against 0.3. It would also be a second
owner of connections, timeouts, proxies and credentials.
"""
