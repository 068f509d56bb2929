"""Version of the package, part of the identity of everything it computes."""

VERSION = "0.2.0"
