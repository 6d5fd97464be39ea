"""From written bytes to a complete object: dirty content, uploads, and what survives a crash.

- ``dirty``: one file that somebody writes; lets changes and commits take turns, and chooses the
  content. What it knows of its owner is a ``Committer``.
- ``content``: the protocol of what a dirty file is made of. ``memory_content`` streams (over
  ``memory_stream``, parts in budgeted memory); ``disk_content`` takes any change (over
  ``disk_bytes``, a staging file above an object, and ``builder``, its way to the store).
- ``twins``: what the store has under another name is copied instead of sent.
- ``upload``: one multipart upload, whose parts leave while the program goes on. ``requests``: the
  others.
- ``parts`` and ``records`` are pure: how a file is cut, and how the journal writes it down.
- ``comparing``: whether the store has what is here.
- ``staging``, ``journal``, ``leftovers``, ``recovery``: nothing acknowledged is lost when the
  daemon dies; ``removals``: and nothing removed comes back; ``markers``: and directories are made;
  ``groupsync``: in a power loss as well, a second later.

A content is replaced, never changed into another kind: whoever waited looks again at which one
there is. Contents, builders and uploads are changed by the task that holds the dirty file's lock;
reads take no lock. A commit is idempotent: an error or a cancellation leaves everything dirty.
"""
