"""S3 and OSS: the operations, their XML, what this store can do, its errors, and trying again.

``bucket`` is the :class:`~ossfs_py.store.base.ObjectStore`; ``wire`` signs and sends, ``reading``,
``writing``, ``copying`` and ``rare`` are the operations, ``conditions`` finds out how the store
says conditional writes, ``error_map`` is the one table of answers, ``retry`` the one policy.
"""
