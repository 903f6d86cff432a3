"""What a run shows: its progress, its status for another shell, and the page that stands there in the morning."""

# In the output folder: what is kept for the report and for looking on; results do not depend on it.
HIDDEN = ".nuclix"
