"""The five stages, one file each: receive a type, call the pure core, return a type. No sockets here."""
