"""What holds a stream on disk: locked, journalled, compressed, written whole or not at all."""
