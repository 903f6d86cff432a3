"""QuPath projects of an output folder: written without Java, with scripts that import the nuclei."""
