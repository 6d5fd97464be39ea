"""The fields of the settings model, a module for each group of the help.

``option`` has what fields are made of. What cannot go together stands with the model itself
(``config/settings.py``), as it mostly concerns several groups.
"""
