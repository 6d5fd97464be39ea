"""The fields of the settings model, with one module for each group of the help.

``option`` has the building blocks of fields. Conflicts between options are in
``config/conflicts.py``, because they mostly concern several groups.
"""
