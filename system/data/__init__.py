"""Videos: the index, decoding, the stages of the stream, and the stream itself."""
