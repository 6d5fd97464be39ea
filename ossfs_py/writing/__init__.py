"""From written bytes to a complete object: dirty content, uploads, and the state kept for crashes.

- ``dirty``: one file that is being written. It lets changes and commits take turns, and chooses the
content. It knows its owner as a ``Committer``.
- ``content``: the protocol of the bytes of a dirty file. ``memory_content`` streams (with
``memory_stream``: parts in budgeted memory). ``disk_content`` accepts any change (with
``disk_bytes``: a staging file over an object, and ``builder``: its upload). ``small_content`` is
the content of a new file until it is no longer small.
- ``segments``: small entries of the journal, one after the other in a few files.
- ``twins``: a file that the store has under another name is copied instead of sent.
- ``upload``: one multipart upload, whose parts are sent while the program writes. ``requests``: the
other requests.
- ``parts``, ``records`` and ``stagelog`` are pure: how a file is cut, and the journal's formats.
``statefiles`` writes the journal's files. ``committing``: the state and the condition of a commit.
- ``comparing``: whether the store has the same bytes as a local file.
- ``staging``, ``journal``, ``leftovers``, ``recovery``: acknowledged writes survive the death of
the daemon. ``removals``: a removed file does not come back. ``markers``: directories are created.
``groupsync``: the same holds after a power loss, a second later.

A content is replaced, and never changed into another kind, so a task that waited checks again which
content there is. Only the task that holds the dirty file's lock changes contents, builders and
uploads; reads take no lock. A commit is idempotent: after an error or a cancellation everything is
still dirty.
"""
