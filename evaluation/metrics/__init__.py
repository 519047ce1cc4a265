"""What is measured of an edited video, each measure with the conventions that its name states."""
