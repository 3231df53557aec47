"""The performance targets of this package, and which of them hold on this machine."""
