"""From written bytes to a complete object: dirty content, uploads, and what survives a crash.

- ``dirty``: one file that is being written. It lets changes and commits take turns, and chooses the
  content. It knows its owner as a ``Committer``.
- ``content``: the protocol of the bytes of a dirty file. ``memory_content`` streams (over
  ``memory_stream``, parts in budgeted memory); ``disk_content`` takes any change (over
  ``disk_bytes``, a staging file above an object, and ``builder``, its way to the store).
  ``small_content`` is the content of a new file until it grows beyond a small one.
- ``segments``: where the journal keeps small entries, one after the other.
- ``twins``: a file that the store has under another name is copied instead of sent.
- ``upload``: one multipart upload, whose parts leave while the program goes on. ``requests``: the
  others.
- ``parts``, ``records`` and ``stagelog`` are pure: how a file is cut, and how the journal writes it
  down. ``statefiles`` writes the journal's files. ``committing``: what a commit goes by.
- ``comparing``: whether the store has the same bytes as a local file.
- ``staging``, ``journal``, ``leftovers``, ``recovery``: when the daemon dies, nothing acknowledged
  is lost. ``removals``: nothing removed comes back. ``markers``: directories are created.
  ``groupsync``: the same holds after a power loss, a second later.

A content is replaced, and never changed into another kind: a task that waited checks again which
content there is. Only the task that holds the dirty file's lock changes contents, builders and
uploads; reads take no lock. A commit is idempotent: an error or a cancellation leaves everything
dirty.
"""
