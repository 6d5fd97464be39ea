"""What ``ossfs-py upgrade`` may change: the guide says the same as the program."""

import re
from pathlib import Path

import ossfs_py
from ossfs_py.config import Settings
from ossfs_py.config.changeable import CHANGEABLE, as_option, fixed_settings
from ossfs_py.config.groups.option import LIMITS

GUIDE = Path(ossfs_py.__file__).parent / "docs" / "operations.md"


def test_the_guide_lists_every_option_that_may_change_and_no_other() -> None:
    section = GUIDE.read_text().split("These options can change:")[1].split("All others")[0]
    listed = set(re.findall(r"`(--[a-z-]+)`", section))
    limits = {as_option(name) for name in CHANGEABLE if Settings.model_fields[name].group == LIMITS}
    assert listed - limits == {as_option(name) for name in CHANGEABLE} - limits
    assert 'all of "Network and memory"' in section


def test_what_both_daemons_must_have_does_not_depend_on_what_may_change() -> None:
    given = {"bucket": "models", "mountpoint": "/mnt", "read_only": True, "at_ns": "3d"}
    one = Settings.model_validate(given)
    other = Settings.model_validate({**given, "concurrency": 3, "metadata_ttl_seconds": "5m"})
    assert fixed_settings(one) == fixed_settings(other)
    changed = Settings.model_validate({**given, "prefix": "team/"})
    assert fixed_settings(one) != fixed_settings(changed)
