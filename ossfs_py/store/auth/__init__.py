"""Credentials: where they come from, when they are read again, and the signatures made with them.

Secrets stay in this package: no other package has one, and none is ever in a log line or an error.
"""
