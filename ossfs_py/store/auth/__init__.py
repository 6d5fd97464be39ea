"""Credentials: their sources, their renewal, and the signatures made with them.

Secrets stay in this package: no other package has one, and no log line or error contains one.
"""
