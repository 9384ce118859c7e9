"""The container images: built with whichever builder is there, from locked packages."""
