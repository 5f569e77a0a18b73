"""Turns to ids."""
