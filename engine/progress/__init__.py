"""Show and keep the progress of a run; reads the events of `nuclix.engine.batch`."""
