"""The backend's own image of the current frame, beside the viewport."""
