"""Looking back: what detectors make of a history, as lines, as a page, as commands."""
