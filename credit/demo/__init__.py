"""`credit demo`: the whole way once, on real text, offline."""
