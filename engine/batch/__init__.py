"""Many slides: find them, hand them to workers, resume, and record what is finished."""
