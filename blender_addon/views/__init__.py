"""The backend's own picture of the current frame, beside the viewport."""
