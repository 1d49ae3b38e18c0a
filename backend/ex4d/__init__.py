"""The backend service: footage to depth, DW-Mesh, masks and new frames. Everything that needs torch lives here."""
