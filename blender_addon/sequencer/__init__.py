"""Takes in the Video Sequencer: growing image strips, the movie strips that replace them, and the export of a cut."""
