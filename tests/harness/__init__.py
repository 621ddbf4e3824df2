"""What the tests stand on: a real primary, hosts that load the library, and peers that lie."""
