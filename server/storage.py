"""Object storage: files under keys, given out by URLs that expire."""
