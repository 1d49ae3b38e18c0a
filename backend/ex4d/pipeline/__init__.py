"""Where the rooms meet: footage to scene, scene and camera to images, shot to take, live views, visible fraction."""
