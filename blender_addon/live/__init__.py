"""Questions that are asked again with every change of the shot, for coverage and views."""
