"""Shots: what to make of a scene, each with its camera, frames and settings; kept in the .blend."""
