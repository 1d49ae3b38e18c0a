"""Combines the packages: footage to scene, scene and camera to images, shot to take, live views, coverage."""
