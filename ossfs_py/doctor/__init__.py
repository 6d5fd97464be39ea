"""What can be wrong between a program and its bucket, looked at one thing after the other.

Every check is a function that returns a :class:`~ossfs_py.doctor.findings.Finding`; none raises
and none prints. :mod:`examination` puts them in order.
"""
