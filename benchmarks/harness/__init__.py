"""The harness: measures points in processes of their own and stores rows; no attention here."""
