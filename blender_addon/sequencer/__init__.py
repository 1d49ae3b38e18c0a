"""Takes in the Video Sequencer: image strips that grow, and the movie strips that replace them."""
