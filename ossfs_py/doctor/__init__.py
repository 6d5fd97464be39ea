"""Checks of everything that can be wrong between a program and its bucket.

Every check is a function that returns a :class:`~ossfs_py.doctor.findings.Finding`. No check raises
or prints. :mod:`examination` puts them in order.
"""
