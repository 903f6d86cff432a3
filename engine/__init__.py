"""What a run is: slides in, objects out. Knows no plugin by name."""
