"""The revisions, one file each, oldest first. A revision that was released is never changed."""
